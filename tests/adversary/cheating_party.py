"""A server that cheats: the real program, with a hand on what it sends and on what it computes.

    python cheating_party.py party 1 --cluster cluster.toml ...

takes the arguments of ``tessera``.  Which member does what is in ``cheat.json`` beside the cluster file, looked up for
each message, so that one process is honest in one run and not in the next: a list of ``Step``s.  A step changes what a
member sends (``message`` is the class of the message), or what it computes (``message`` is one of ``INSIDE``).

The cheat is *rushing*: what it makes of the others' openings it sends after it has theirs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mpc.operation import Value
from mpc.rings import field
from mpc.rings.prg import Seed
from parties.commands import command_line
from parties.messages.runs import Opening
from parties.servers.online import Online
from parties.stock import waste
from parties.wire.messages import Message
from parties.wire.transport import Endpoint
from protocols.randomness.dealt import DealtToParty
from protocols.readings.mac_check import MacCheck
from protocols.readings.party import PartyRun

log = logging.getLogger("parties.local.cheating")

STRATEGY = "cheat.json"
INSIDE = ("sigma", "key", "stored", "transcript")
Buffers = list[np.ndarray]


@dataclass(frozen=True)
class Step:
    """What ``member`` does instead of what it should."""

    member: str
    act: str
    message: str = "Opening"
    round: int | None = None
    """Of openings; None: every one."""
    to: str | None = None
    """Only what goes to this peer; None: to all."""
    frame: int = 0
    at: int = 0
    """Which element (or byte, of a seed)."""
    value: int = 1
    source: str = ""
    """Whose opening is copied; the first other one if empty."""


def write_strategy(folder: Path, steps: Sequence[Step]) -> None:
    """From now on the members do this; nothing: they are honest."""
    scratch = folder / (STRATEGY + ".new")
    scratch.write_text(json.dumps([asdict(step) for step in steps]), encoding="utf-8")
    scratch.rename(folder / STRATEGY)


def read_strategy(folder: Path, member: str) -> list[Step]:
    try:
        steps = [Step(**step) for step in json.loads((folder / STRATEGY).read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    return [step for step in steps if step.member == member]


# -- what may be done to a message -----------------------------------------------------------------------------------


def flip(step: Step, array: np.ndarray) -> np.ndarray:
    array[step.at] ^= array.dtype.type(step.value)
    return array


def add(step: Step, array: np.ndarray) -> np.ndarray:
    return field.add(array, at(array.size, step.at, step.value))


def cancel(step: Step, array: np.ndarray) -> np.ndarray:
    """Adds a constant to one value, and takes it from the next."""
    return field.subtract(add(step, array), at(array.size, step.at + 1, step.value))


def double(step: Step, array: np.ndarray) -> np.ndarray:
    return field.add(array, array)


def at(size: int, place: int, value: int) -> np.ndarray:
    array = field.zeros(size)
    array[place] = value
    return array


CHANGES: dict[str, Callable[[Step, np.ndarray], np.ndarray]] = {
    "flip": flip,
    "add": add,
    "cancel": cancel,
    "double": double,
    "zero": lambda step, array: np.zeros_like(array),
    "truncate": lambda step, array: array[:-1].copy(),
    "lengthen": lambda step, array: np.concatenate([array, array[:1]]),
    "unreduced": lambda step, array: np.full_like(array, field.P),
}


def numbers(buffer: Any) -> np.ndarray:
    """A copy to write to: of field elements, or the bytes of what is none."""
    if isinstance(buffer, np.ndarray):
        return buffer.copy().reshape(-1)
    data = bytes(buffer)
    seeds = len(data) < 64  # seeds are 16 bytes each; what the stock kept of an array has no type any more
    return np.frombuffer(data, np.uint8 if seeds or len(data) % 8 else np.uint64).copy()


Said = list[tuple[Message, Buffers]]


class Cheat:
    """The hand on one process."""

    def __init__(self, folder: Path, send: Callable[..., int]) -> None:
        self._folder = folder
        self._send = send
        self._seen: dict[tuple[str, int], dict[str, np.ndarray]] = defaultdict(dict)
        """Others' openings by run and round."""
        self._waiting: dict[tuple[str, int], list[Callable[[], None]]] = defaultdict(list)
        self._past: dict[tuple[str, int], np.ndarray] = {}
        """What was opened to a peer in a round, in the last run that was honest in it."""
        self._early: dict[tuple[str, str], tuple[Message, Buffers]] = {}

    def send(
        self, endpoint: Endpoint, peer: str, message: Message, buffers: Sequence[Any] = (), *, copy: bool = False
    ) -> int:
        for step in read_strategy(self._folder, endpoint.me.name):
            number = getattr(message, "round", None) if isinstance(message, Opening) else None
            wanted = step.message == type(message).__name__ and step.round in (None, number)
            if wanted and step.to in (None, peer):
                return self._instead(step, endpoint, peer, message, [numbers(b) for b in buffers])
        if isinstance(message, Opening) and len(buffers) == 1:
            self._past[peer, message.round] = numbers(buffers[0])
        return self._send(endpoint, peer, message, buffers, copy=copy)

    def _instead(self, step: Step, endpoint: Endpoint, peer: str, message: Message, buffers: Buffers) -> int:
        payload = sum(buffer.nbytes for buffer in buffers)

        def say() -> None:
            for said, changed in self._said(step, peer, message, buffers):
                log.warning("cheats: %s %s to %s", step.act, type(said).__name__, peer)
                self._send(endpoint, peer, said, changed, copy=True)

        if isinstance(message, Opening) and step.act in ("copy", "silent"):
            self._when_all_have_spoken(endpoint, (message.run, message.round), say)
        else:
            say()
        return payload

    def _said(self, step: Step, peer: str, message: Any, buffers: Buffers) -> Said:
        match step.act:
            case "silent":
                if isinstance(message, Opening):
                    log.warning("cheats: has the openings of %d others, and says nothing", len(self._of(message)))
                return []
            case "copy":
                others = self._of(message)
                other = others[step.source or min(others)]
                # From the place given on: of a round's opening, say, the commitment behind it.
                return [(message, [np.concatenate([buffers[0][: step.at], other[step.at :]])])]
            case "replay":
                return [(message, [self._past[peer, step.value if step.round is None else step.round]])]
            case "again":
                return [(message, buffers), (message, buffers)]
            case "ahead":
                return [(msgspec.structs.replace(message, round=message.round + 1), buffers), (message, buffers)]
            case "behind":
                return [(msgspec.structs.replace(message, round=message.round - 1), buffers)]
            case "far":
                return [(msgspec.structs.replace(message, round=message.round + 100), buffers)]
            case "drop":
                return [(message, [b for k, b in enumerate(buffers) if k != step.frame])]
            case "swap":
                return [(message, [*buffers[1:], buffers[0]])]
            case "digest":
                return [(msgspec.structs.replace(message, masks=hashlib.sha256(b"other").hexdigest()), buffers)]
            case "number":
                return [(msgspec.structs.replace(message, number=message.number + step.value), buffers)]
        change = CHANGES[step.act]
        return [(message, [change(step, b) if k == step.frame else b for k, b in enumerate(buffers)])]

    def _of(self, message: Opening) -> dict[str, np.ndarray]:
        return self._seen[message.run, message.round]

    def _when_all_have_spoken(self, endpoint: Endpoint, key: tuple[str, int], say: Callable[[], None]) -> None:
        if len(self._seen[key]) == len(endpoint.cluster.parties) - 1:
            say()
        else:
            self._waiting[key].append(say)

    def hear(self, online: Online, peer: str, message: Opening, payload: Sequence[memoryview]) -> None:
        key = message.run, message.round
        self._seen[key][peer] = np.frombuffer(bytes(payload[0]), np.uint64)
        if len(self._seen[key]) == len(online._peers):
            for say in self._waiting.pop(key, []):
                say()


def install(folder: Path, member: str) -> None:
    """Puts the hand on this process."""
    cheat = Cheat(folder, Endpoint.send)
    on_opening, sigma, make, keys = Online._on_opening, MacCheck._sigma, PartyRun.__init__, DealtToParty.key_stream
    note = MacCheck.note

    def send(endpoint: Endpoint, *arguments: Any, **options: Any) -> int:
        return cheat.send(endpoint, *arguments, **options)

    def hear(online: Online, peer: Any, message: Opening, payload: Any) -> None:
        cheat.hear(online, peer.name, message, payload)
        on_opening(online, peer, message, payload)

    def inside(kind: str) -> Step | None:
        return next((step for step in read_strategy(folder, member) if step.message == kind), None)

    def sigma_of(check: MacCheck, coefficients: Any, macs: Any) -> np.ndarray:
        right, step = sigma(check, coefficients, macs), inside("sigma")
        if step is None:
            return right
        error = np.array([step.value], np.uint64)
        if step.act == "own key":
            # What would make up for an error in the first value opened, if this party's share were all of the key.
            chi = coefficients.derive("round 0").elements(check._opened[0].size)[:1]
            error = field.multiply(field.scale(chi, check._context.unit), error)
        return field.add(right, error)

    def run(self: PartyRun, *arguments: Any, **options: Any) -> None:
        step = inside("stored")
        if step is not None:
            options["stored"] = {
                name: Value(value.public, add(step, value.share.reshape(-1)).reshape(value.share.shape))
                for name, value in options["stored"].items()
            }
        make(self, *arguments, **options)

    def key_stream(self: DealtToParty) -> Seed:
        right = keys.__get__(self)
        return right if inside("key") is None else right.derive("another")

    def transcript(self: MacCheck, public: Any) -> None:
        note(self, public if inside("transcript") is None else b"something else")

    Endpoint.send = send  # type: ignore[method-assign]
    Online._on_opening = hear  # type: ignore[method-assign]
    MacCheck._sigma = sigma_of  # type: ignore[method-assign]
    MacCheck.note = transcript  # type: ignore[method-assign]
    PartyRun.__init__ = run  # type: ignore[method-assign]
    DealtToParty.key_stream = property(key_stream)  # type: ignore[assignment, method-assign]


def main(arguments: list[str]) -> int:
    folder = Path(arguments[arguments.index("--cluster") + 1]).parent
    member = "dealer" if "dealer" in arguments else f"party{arguments[arguments.index('party') + 1]}"
    install(folder, member)
    # A client whose runs fail again and again is given nothing from stock for a while; here they fail all the time.
    waste.MOST = 1 << 30
    return command_line.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
