"""Shares of large stored tensors are expanded when they are asked for, and are what they would be if they were kept."""

from __future__ import annotations

import numpy as np
import pytest

from mpc.operation import PartyContext
from mpc.rings import FieldRing, field, matrix
from mpc.rings.prg import Seed
from mpc.tensor_type import Form, TensorType
from parties import DataSet
from parties.stored import stored_value as module
from parties.stored.stored_value import Expanded, stored_value

STREAM = Seed(bytes(range(16)))
PUBLIC = np.arange(12, dtype=np.uint64).reshape(3, 4)
TYPE = TensorType((3, 4), 16, -1.0, 1.0, Form.MASKED)


def test_an_expanded_share_is_the_share(monkeypatch):
    kept = stored_value(FieldRing(), PUBLIC, (3, 4), STREAM)
    monkeypatch.setattr(module, "KEPT", 11)
    made = stored_value(FieldRing(), PUBLIC, (3, 4), STREAM)
    assert (type(kept) is Expanded, type(made)) == (False, Expanded)
    assert np.array_equal(kept.share, made.share)
    assert made.share is not made.share, "it is not kept"
    for index in range(2):
        party = PartyContext(index, 2)
        assert np.array_equal(party.fold(kept, TYPE), party.fold(made, TYPE))
    beside = made.with_share(field.zeros((3, 4)))
    assert not beside.share.any()
    assert not made.pending
    with pytest.raises(AttributeError, match="shares"):
        made.shares  # noqa: B018
    assert "0" not in repr(made)


@pytest.mark.parametrize(("kept", "streamed"), [(0, 0), (0, 1 << 20), (1 << 16, 0)])
async def test_whatever_reads_it_computes_the_same(strict, monkeypatch, kept, streamed):
    monkeypatch.setattr(module, "KEPT", kept)
    monkeypatch.setattr(matrix, "STREAMED", streamed)
    x, w = np.linspace(-1, 1, 12).reshape(3, 4), np.linspace(-0.5, 0.5, 12).reshape(3, 4)
    async with strict.client() as client:
        data = await client.upload(DataSet({"w": w}, low=-1, high=1), "weights")
        stored = data["w"]
        shared = client.share(x, low=-1, high=1)
        for _ in range(2):
            results = await client.reveal(
                [shared * stored, shared @ stored.T, stored * stored + shared, (stored - shared).relu(), stored[1:]]
            )
            wanted = [x * w, x @ w.T, w * w + x, np.maximum(w - x, 0), w[1:]]
            for got, want in zip(results, wanted, strict=True):
                assert got == pytest.approx(want, abs=1e-3)
