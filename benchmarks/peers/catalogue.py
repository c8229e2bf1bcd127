"""The systems that are compared: how each is started, what it protects against, and what its figures count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpc.errors import UsageError

RUNNERS = Path(__file__).parent / "runners"

_TESSERA = (
    "semi-honest, up to n-1 of n parties together; dealer trusted, in a process of its own; wire encrypted (CURVE)"
)
_TESSERA_MALICIOUS = (
    "malicious, up to n-1 of n parties together; dealer trusted, in a process of its own; wire encrypted (CURVE)"
)
_TESSERA_COUNTS = "masked inputs from the client, evaluation, result at the client"
_CRYPTEN_COUNTS = (
    "evaluation and revealing, inputs shared before; triples from its cache, filled before (the offline time)"
)
_SPU_COUNTS = "evaluation with all dealing inside; neither sharing of inputs nor revealing"


@dataclass(frozen=True)
class System:
    """One row of the comparison."""

    name: str
    peer: str
    """The environment it needs; "tessera" needs none."""
    parties: int
    protects: str
    """Against whom, on what assumptions."""
    online: str
    """What its online time counts."""
    arguments: Sequence[str] = ()
    """Of the peer's runner."""
    numbers: str = ""
    """How reals are represented."""
    security: str = "semi-honest"
    heavy: bool = False
    """Whether it can need most of a machine's memory."""


SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System("tessera", "tessera", 2, _TESSERA, _TESSERA_COUNTS, numbers="61-bit prime field, 16 fraction bits"),
        System("tessera-3", "tessera", 3, _TESSERA, _TESSERA_COUNTS, numbers="61-bit prime field, 16 fraction bits"),
        System(
            "tessera-malicious", "tessera", 2,
            _TESSERA_MALICIOUS, _TESSERA_COUNTS, numbers="61-bit prime field, 16 fraction bits", security="malicious",
        ),
        System(
            "crypten", "crypten", 2,
            "semi-honest, up to n-1 of n; party 0 makes all triples, and so could learn everything; wire not encrypted",
            _CRYPTEN_COUNTS, ("--parties", "2"), "ring of 2^64, 16 fraction bits",
        ),
        System(
            "crypten-3", "crypten", 3,
            "semi-honest, up to n-1 of n; party 0 makes all triples, and so could learn everything; wire not encrypted",
            _CRYPTEN_COUNTS, ("--parties", "3"), "ring of 2^64, 16 fraction bits",
        ),
        System(
            "crypten-dealer", "crypten", 2,
            "semi-honest, up to n-1 of n; dealer trusted, in a process of its own; wire not encrypted",
            _CRYPTEN_COUNTS, ("--parties", "2", "--dealer"), "ring of 2^64, 16 fraction bits",
        ),
        System(
            "spu-semi2k", "spu", 2,
            "semi-honest, 1 of 2; party 0 makes all triples, and so could learn everything; wire not encrypted",
            _SPU_COUNTS, ("--protocol", "SEMI2K", "--parties", "2"), "ring of 2^64, 18 fraction bits",
        ),
        System(
            "spu-aby3", "spu", 3,
            "semi-honest, 1 of 3 (honest majority), no dealer; wire not encrypted",
            _SPU_COUNTS, ("--protocol", "ABY3", "--parties", "3"), "ring of 2^64, 18 fraction bits",
        ),
        System(
            "spu-cheetah", "spu", 2,
            "semi-honest, 1 of 2, no dealer: lattice encryption and oblivious transfer; wire not encrypted",
            _SPU_COUNTS, ("--protocol", "CHEETAH", "--parties", "2"), "ring of 2^64, 18 fraction bits",
            heavy=True,
        ),
        System(
            "mpyc", "mpyc", 3,
            "semi-honest, 1 of 3 (honest majority), no dealer; wire not encrypted",
            "evaluation and revealing, inputs shared before", ("--parties", "3"),
            "prime field, 32-bit numbers, 16 fraction bits",
        ),
        System(
            "tenseal", "tenseal", 1,
            "semi-honest server, one alone; the server knows the network's weights; nobody else takes part",
            "the client encrypts, the server computes, the client decrypts", (), "CKKS, approximate",
            heavy=True,
        ),
    )
}  # fmt: skip


def chosen(names: list[str] | None) -> list[System]:
    """The systems of these names, by default all.  Raises UsageError for one that does not exist."""
    for name in names or ():
        if name not in SYSTEMS:
            raise UsageError(f"there is no system {name!r} to compare: the known ones are {', '.join(SYSTEMS)}")
    return [SYSTEMS[name] for name in names or SYSTEMS]


def script(system: System) -> Path:
    """The runner of a peer."""
    return RUNNERS / f"{system.peer}_runner.py"
