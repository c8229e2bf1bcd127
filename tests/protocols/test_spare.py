"""What a product leaves of the field for what comes after it, and what is joined: neither is cut, or opened, twice."""

from __future__ import annotations

from collections import Counter

import pytest

from mpc.operation import Input
from mpc.program import Program
from protocols.lowering import planner
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import SecretTensor, concatenate, graph_of, leaf


def _clipped() -> Program:
    """Twice, of products that fill the field."""
    x, w = leaf(Input((2, 8), 30, -60.0, 60.0)), leaf(Input((8, 8), 24, -1.0, 1.0))
    for _ in range(2):
        x = ((x @ w) @ w).clip(0.0, 6.0)
    return plan(graph_of([x]))


def test_what_is_compared_after_a_product_is_not_cut_by_a_bit_or_two(monkeypatch: pytest.MonkeyPatch) -> None:
    spared = _clipped()
    monkeypatch.setattr(planner, "SPARE", 0)
    filled = _clipped()
    assert spared.rounds < filled.rounds
    cut, before = (Counter(n.operation.name for n in p.nodes)["truncate"] for p in (spared, filled))
    assert cut < before


def _dense(parts: int) -> SecretTensor:
    """Each part of all before it, as in a DenseNet."""
    w = leaf(Input((8, 8), 24, -1.0, 1.0))
    joined = [leaf(Input((8, 8), 16, -4.0, 4.0))]
    for _ in range(parts):
        joined.append((concatenate(joined, axis=0) @ w @ w)[:8])
    return concatenate(joined, axis=0)


def test_what_is_joined_again_and_again_is_opened_once_each() -> None:
    nodes = plan(graph_of([_dense(4)])).nodes
    opened = [nodes[node.inputs[0]].operation.name for node in nodes if node.operation.name == "mask"]
    assert opened
    assert "concatenate" not in opened


def test_what_is_joined_is_no_larger_than_its_parts() -> None:
    """So none is cut as the summands of a sum would be."""
    x, y = (leaf(Input((4,), 52, -100.0, 100.0)) for _ in range(2))
    assert all(node.operation.name != "truncate" for node in plan(graph_of([concatenate([x, y], axis=0)])).nodes)
