"""A server that writes down what it sends, and kills itself where it is told to.

    python crashing_server.py party 1 --cluster cluster.toml ...

takes the arguments of ``tessera``.  ``MEMBER.crash`` beside the cluster file says where: a ``Crash``, for once.  Each
message is a line of ``MEMBER.wire`` before it is handed to the transport, with the item of preprocessing it depends on.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parties.commands import command_line
from parties.servers.party import PartyServer
from parties.stock import waste
from parties.stock.dealer_stock import DealerStock
from parties.stock.ledger import PartyLedger
from parties.stock.material import Material
from parties.stored.decided_versions import DecidedVersions
from parties.stored.job_book import JobBook
from parties.stored.job_tables import JobTables
from parties.stored.partials import Partial
from parties.stored.party_versions import PartyVersions
from parties.wire.messages import Message
from parties.wire.transport import Endpoint


@dataclass(frozen=True)
class Crash:
    """Before or after (``when``) the ``count``-th time of ``what``.

    That is the class of a message that is sent, with the number of the round of an opening; or a change of the ledger,
    or of the models on the disk.
    """

    what: str
    when: str
    count: int = 1

    def write(self, folder: Path, member: str) -> None:
        (folder / f"{member}.crash").write_text(json.dumps(asdict(self)), encoding="utf-8")


LEDGER: list[tuple[type, str]] = [
    (PartyLedger, "add"),
    (PartyLedger, "take"),
    (DealerStock, "begin"),
    (DealerStock, "ready"),
    (DealerStock, "assign"),
    (DealerStock, "assign_next"),
    (Partial, "append"),
    (PartyVersions, "prepare"),
    (PartyVersions, "commit"),
    (PartyVersions, "drop"),
    (DecidedVersions, "commit"),
    (DecidedVersions, "remove"),
    (JobBook, "begin"),
    (JobTables, "write_result"),
]


class Observer:
    """In one process."""

    def __init__(self, folder: Path, member: str) -> None:
        self._crash_file = folder / f"{member}.crash"
        self._crash: Crash | None = None
        self._left = 0
        self._wire = os.open(folder / f"{member}.wire", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._items: dict[str, str] = {}

    def point(self, what: str, when: str) -> None:
        """Here the process may end."""
        if self._crash is None:
            with contextlib.suppress(FileNotFoundError):
                self._crash = Crash(**json.loads(self._crash_file.read_text(encoding="utf-8")))
                self._left = self._crash.count
        if self._crash is not None and (self._crash.what, self._crash.when) == (what, when):
            self._left -= 1
            if self._left == 0:
                self._crash_file.unlink()
                os.kill(os.getpid(), signal.SIGKILL)

    def takes(self, run: str, item: str) -> None:
        """From now on the run's messages are made with that item."""
        self._items[run] = item

    def sends(self, message: Message, peer: str, buffers: Sequence[Any]) -> str:
        """Written down before it is sent, so nothing is sent that is not; returns the message's name."""
        kind, run = type(message).__name__, getattr(message, "run", "")
        payload = hashlib.sha256(b"".join(hashlib.sha256(memoryview(b)).digest() for b in buffers)).hexdigest()
        number = getattr(message, "round", -1)
        line = {"kind": kind, "run": run, "to": peer, "round": number, "item": self._items.get(run, ""), "sha": payload}
        os.write(self._wire, json.dumps(line).encode() + b"\n")
        return f"{kind} {number}" if kind == "Opening" else kind


def watched(observer: Observer, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """With a point before it and one behind."""

    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        observer.point(name, "before")
        result = method(*arguments, **options)
        observer.point(name, "after")
        return result

    return call


def install(observer: Observer) -> None:
    send, take, prepare = Endpoint.send, Material.take, PartyServer._prepared

    def observed(self: Endpoint, peer: str, message: Message, buffers: Sequence[Any] = (), **options: Any) -> int:
        name = observer.sends(message, peer, buffers)
        observer.point(name, "before")
        sent = send(self, peer, message, buffers, **options)
        observer.point(name, "after")
        return sent

    def taken(self: Material, message: Any, program: str) -> Any:
        part = take(self, message, program)
        observer.takes(message.run, f"{message.session}/{message.number}")
        return part

    Endpoint.send = observed  # type: ignore[method-assign]
    Material.take = taken  # type: ignore[method-assign]
    PartyServer._prepared = watched(observer, "prepared", prepare)  # type: ignore[method-assign]
    for owner, name in LEDGER:
        setattr(owner, name, watched(observer, name, getattr(owner, name)))


def main(arguments: list[str]) -> int:
    folder = Path(arguments[arguments.index("--cluster") + 1]).parent
    member = "dealer" if "dealer" in arguments else f"party{arguments[arguments.index('party') + 1]}"
    install(Observer(folder, member))
    # A client whose runs fail again and again is given nothing from stock for a while; here they fail all the time.
    waste.MOST = 1 << 30
    return command_line.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
