"""The streams that a seed of a run expands to: one for every purpose, derived by a label, so that nothing is expanded
twice."""

from __future__ import annotations

from mpc.program import Program
from mpc.rings.prg import Seed


def mask_stream(seed: Seed, node: int) -> Seed:
    """The stream from which a party's share of the mask of ``node`` expands."""
    return seed.derive(f"mask of node {node}")


def kept_stream(seed: Seed) -> Seed:
    """The seed, of a party's, of the masks of all that a run keeps: from then on that of a stored version."""
    return seed.derive("masks of what is kept")


def own_mask_stream(seed: Seed, program: Program, node: int) -> Seed:
    """The stream from which a party's share of the node's own mask expands in a run of this seed."""
    tensor = program.nodes[node].operation.kept_as
    return stored_stream(kept_stream(seed), tensor) if tensor else mask_stream(seed, node)


def dealt_stream(seed: Seed, node: int, part: int) -> Seed:
    """The stream of a party's share of the ``part``-th tensor of ``node`` that the last party has a correction for."""
    return seed.derive(f"dealt {part} of node {node}")


def lent_stream(seed: Seed, node: int) -> Seed:
    """The stream of a party's share of what ``node`` lends to an opening (``mpc/loans.py``)."""
    return seed.derive(f"lent by node {node}")


def output_stream(seed: Seed, output: int) -> Seed:
    """The stream from which a party's share of the mask of the ``output``-th output expands."""
    return seed.derive(f"mask of output {output}")


def output_mac_stream(seed: Seed, output: int) -> Seed:
    """The stream from which a party's share of the mask of the MAC of the ``output``-th output expands."""
    return seed.derive(f"mask of the MAC of output {output}")


def stored_stream(seed: Seed, tensor: str) -> Seed:
    """The stream from which a party's share of the mask of a stored tensor expands."""
    return seed.derive(f"mask of stored {tensor}")


def key_stream(seed: Seed) -> Seed:
    """The stream from which a party's share of the run's MAC key expands; told to the client in the end."""
    return seed.derive("share of the MAC key")


def key_share(stream: Seed) -> int:
    """A party's share of the run's MAC key."""
    return int(stream.elements(1)[0])
