"""``tessera bench scale``: power laws, its figures, and that memory does not grow with the batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.models import derm
from benchmarks.records import read
from benchmarks.scale import FITTED, fit
from benchmarks.session import watched_session
from mpc.cost import cost
from parties.commands.command_line import main


def test_a_power_law_is_found() -> None:
    xs = [1.0, 2.0, 8.0, 64.0]
    found = fit(xs, [3.0 * x**1.5 for x in xs])
    assert found.exponent == pytest.approx(1.5)
    assert found.factor == pytest.approx(3.0)
    assert found.deviation == pytest.approx(1.0)
    assert (found.least, found.greatest) == (1.0, 64.0)
    assert fit([1.0, 2.0, 4.0], [1.0, 4.0, 4.0]).deviation > 1.2


@pytest.mark.usefixtures("shared_cluster")
def test_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.jsonl"
    arguments = ["bench", "scale", "--batches", "1", "3", "4", "5", "--sides", "8", "16", "32", "--chunk", "2"]
    assert main([*arguments, "--repeat", "2", "--json", "--out", str(path)]) == 0
    summary: dict[str, Any] = json.loads(capsys.readouterr().out)
    one, *_, five = summary["batches"]
    assert (one["chunk"], five["chunk"]) == (1, 2)
    costs = [derm().model.cost((n, 3, 28, 28), 2) for n in (2, 2, 1)]
    assert five["as_predicted"]
    assert five["online"]["rounds"] == five["online"]["messages_per_party"] == sum(c.online_rounds for c in costs)
    assert five["online"]["bytes_per_party"] == sum(c.online_bytes_per_party for c in costs)
    assert five["offline"]["bytes"] == sum(c.offline_bytes for c in costs)
    for most, least in (("max", "min"), ("min", "max")):
        assert five["images_per_second"][most] == pytest.approx(5 / five["seconds"][least])
    assert five["peak_bytes"].keys() == {"dealer", "party", "client"}
    assert [point["shape"][-1] for point in summary["sides"]] == [8, 16, 32]
    for name in ("batch", "streamed batch", "side"):
        assert summary["fits"][name].keys() == FITTED.keys()
    # But for bits, which fill whole bytes.
    assert summary["fits"]["batch"]["online.bytes_per_party"]["exponent"] == pytest.approx(1.0, abs=1e-4)
    streamed = summary["fits"]["streamed batch"]["online.bytes_per_party"]
    assert (streamed["least"], streamed["greatest"], round(streamed["exponent"], 3)) == (3, 5, 1.0)
    assert 1.5 < summary["fits"]["side"]["online.bytes_per_party"]["exponent"] < 2.1
    records = read(path)
    assert [r.case.get("batch") for r in records[:7]] == [1, 3, 4, 5, 1, 1, 1]
    fits = [(r.case["fit"], r.case["figure"]) for r in records[7:]]
    assert fits == [(name, figure) for name in summary["fits"] for figure in FITTED]
    assert all("exponent" in r.figures for r in records[7:])


@pytest.mark.usefixtures("shared_cluster")
def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scale", "--batches", "1", "2", "3", "--sides", "--repeat", "1"]) == 0
    printed = capsys.readouterr().out
    assert "images/s" in printed
    assert "bytes online, each party ~ batch^1.00, fitted on batch 1 to 3" in printed
    assert "side" not in printed


@pytest.mark.slow
@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
def test_memory_does_not_grow_with_the_batch(security: str) -> None:
    """Sixteen chunks need hardly more than four; in one run they would need four times as much."""
    chosen, chunk = derm(), 16
    peaks = []
    with watched_session(2, security, 120.0) as session:
        remote = session.client.upload(chosen.model, "derm")
        for batch in (4 * chunk, 16 * chunk):
            session.processes.start()
            logits = session.client.predict(remote, chosen.inputs(batch), chunk=chunk)
            assert logits.shape == (batch, 7)
            used = session.processes.usage()
            peaks.append({name: used[name].peak_bytes for name in ("dealer", "party0", "party1")})
    for name, peak in peaks[1].items():
        # Allocators and the timing of two chunks under way make it vary.
        assert peak < 2 * peaks[0][name], peaks
    dealt = cost(remote.description.program((16 * chunk, 3, 28, 28)), 2).offline_bytes
    assert max(peaks[1].values()) < max(peaks[0].values()) + dealt / 4
    assert np.isfinite(logits).all()
