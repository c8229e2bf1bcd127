"""Pictures that are small as files and large in memory, handed to whoever decodes pictures: clients alone do.

``tessera predict`` is given one after the other, the clinic's page as many at a time as it takes, by browsers that send
the next once they are answered.  What counts beside the honest client's predictions is the memory that the process
takes for them, beyond what it takes for a photograph of 28x28 pixels: `nn.pictures` says how much that is at most.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.processes import peak_bytes
from benchmarks.strangers.process import NICE, UNDER_WAY, first_line
from mpc.errors import UsageError
from nn.derm import samples
from nn.pictures import MAX_MEMORY, MAX_PIXELS
from parties import LocalCluster
from parties.pages.clinic import MAX_AT_ONCE

MOST = MAX_MEMORY
"""Bytes that decoding takes at most."""

_GREY, _RGBA = (0, 1), (6, 4)
"""PNG's colour types, and the bytes of a pixel."""
_POLL = 0.005


def plain_png(side: int, kind: tuple[int, int]) -> bytes:
    """One of one colour: about a thousandth of the bytes that its pixels are."""
    colour, size = kind
    packed, row = zlib.compressobj(9), bytes(1 + size * side)
    rows = b"".join([packed.compress(row) for _ in range(side)]) + packed.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@functools.cache
def harmful() -> dict[str, bytes]:
    """The largest that is decoded, with transparency, which takes most; and one of 242 KiB that is not."""
    return {"largest": plain_png(math.isqrt(MAX_PIXELS), _RGBA), "beyond": plain_png(15_800, _GREY)}


@dataclass
class Fed:
    """What came of it: pictures, the bytes that they took in memory, s until the slowest was answered."""

    sent: int = 0
    peak_bytes: int = 0
    longest_seconds: float = 0.0
    unanswered: int = 0
    """Honest photographs, afterwards."""
    refused: Counter[str] = field(default_factory=Counter)

    def note(self, seconds: float, error: str | None) -> None:
        """Another one has been answered, with an answer or an error."""
        self.sent += 1
        self.longest_seconds = max(self.longest_seconds, seconds)
        self.refused.update([error] if error else [])

    def to_dict(self) -> dict[str, Any]:
        """As attackers' tallies are."""
        return {**vars(self), "refused": dict(self.refused)}


@contextlib.contextmanager
def feeding(name: str, cluster: LocalCluster, client: str, model: str) -> Iterator[dict[str, Any]]:
    """While it is open that client is given such pictures; afterwards its tally is filled in."""
    tally: dict[str, Any] = {}
    kind = FED[name]
    words = ["--cluster", str(cluster.path), "--key", str(cluster.key_path(client)), "--model", model, "--json"]
    with tempfile.TemporaryDirectory(prefix="tessera-pictures-") as folder:
        fed, stop = Fed(), threading.Event()
        with kind(words, Path(folder), fed, stop):
            try:
                time.sleep(UNDER_WAY)
                yield tally
            finally:
                stop.set()
        tally.update(fed.to_dict())


@contextlib.contextmanager
def _to_predict(words: list[str], folder: Path, fed: Fed, stop: threading.Event) -> Iterator[None]:
    """One call of ``tessera predict`` after the other."""
    usual = _predicted(samples()[0].path, words)[1]
    paths = [folder / f"{name}.png" for name in ("largest", "beyond")]
    for path, data in zip(paths, harmful().values(), strict=True):
        path.write_bytes(data)

    def feed() -> None:
        while not stop.is_set():
            for path in paths:
                started = time.monotonic()
                error, peak = _predicted(path, words)
                fed.note(time.monotonic() - started, error)
                fed.peak_bytes = max(fed.peak_bytes, peak - usual)

    with _threads(feed, 1):
        yield
    fed.unanswered = int(_predicted(samples()[0].path, words)[0] is not None)


def _predicted(path: Path, words: list[str]) -> tuple[str | None, int]:
    """The error, if it is one, and the most memory of ``tessera predict`` of a file."""
    process, peak = _tessera("predict", str(path), *words), 0
    while process.poll() is None:
        with contextlib.suppress(UsageError):  # it has ended meanwhile
            peak = max(peak, peak_bytes(process.pid))
        time.sleep(_POLL)
    printed, _ = process.communicate()
    return json.loads(printed).get("error"), peak


@contextlib.contextmanager
def _to_the_page(words: list[str], _: Path, fed: Fed, stop: threading.Event) -> Iterator[None]:
    """All that the page takes at a time."""
    process = _tessera("clinic", "--listen", "127.0.0.1:0", *words)
    try:
        url, _, token = json.loads(first_line(process) or "{}").get("url", "").partition("#")
        if not token:
            raise UsageError("the clinic's page did not start: see above")

        def answered(picture: bytes) -> str | None:
            return _posted(f"{url}api/predict", token, picture)

        honest, data = samples()[0].path.read_bytes(), list(harmful().values())
        if error := answered(honest):
            raise UsageError(f"the clinic's page answers a photograph with {error}")
        usual = peak_bytes(process.pid)

        def feed() -> None:
            while not stop.is_set():
                for picture in data:
                    started = time.monotonic()
                    error = answered(picture)
                    fed.note(time.monotonic() - started, error)

        with _threads(feed, MAX_AT_ONCE):
            yield
        fed.peak_bytes = peak_bytes(process.pid) - usual
        fed.unanswered = int(answered(honest) is not None)
    finally:
        process.kill()
        process.communicate()


def _posted(url: str, token: str, picture: bytes) -> str | None:
    """The error that the page says of a picture; None if it is answered."""
    request = urllib.request.Request(url, picture, {"Authorization": f"Bearer {token}"})  # noqa: S310 - loopback's
    try:
        with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
            steps = [json.loads(line) for line in response]
    except urllib.error.HTTPError as error:
        return str(json.loads(error.read())["error"])
    return None if steps[-1]["step"] == "answered" else str(steps[-1]["error"])


@contextlib.contextmanager
def _threads(work: Callable[[], None], count: int) -> Iterator[None]:
    """They end once what they are doing has ended."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


def _tessera(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "parties.commands.command_line", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603
    os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
    return process


FED: dict[str, Callable[[list[str], Path, Fed, threading.Event], contextlib.AbstractContextManager[None]]] = {
    "pictures to predict": _to_predict,
    "pictures to the page": _to_the_page,
}
