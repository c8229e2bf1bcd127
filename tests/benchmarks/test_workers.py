"""``tessera bench workers``: a run that is played again is that run; what is waited for is what was measured."""

from __future__ import annotations

import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.models import derm
from benchmarks.records import read
from benchmarks.workers.recording import SECURITY, Recording, recorded
from benchmarks.workers.replaying import PlayedDealing, PlayedRun, Processor
from mpc import fixed_point
from parties.commands.command_line import main
from protocols.randomness.dealt import read as read_array
from protocols.readings.inputs import masked_inputs
from protocols.readings.memory import as_sent, lockstep
from protocols.readings.reveal import reveal, revealed_parts


def test_what_is_played_again_comes_to_the_same() -> None:
    chosen = derm()
    program, inputs = chosen.program(1, SECURITY), chosen.inputs(1)
    made = recorded(chosen.model, program, [inputs], 3)
    played = msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=Recording)
    dealer, parts = PlayedDealing(played), revealed_parts(program, SECURITY)
    for _ in range(2):
        dealing = dealer.deal(program, 3, {}, SECURITY)
        client = dealer.for_client(program, SECURITY, 3, as_sent(dealing.for_client()))
        runs = [PlayedRun(program, part, Processor(0)) for part in played.parties]
        assert all(run.provided for run in runs)
        masked = masked_inputs(
            program, [fixed_point.encode(inputs, program.nodes[program.inputs[0]].type.fraction_bits)], client
        )
        sent = [
            [read_array(dealer.rings, data, part, "") for data, part in zip(as_sent(one), parts, strict=True)]
            for one in lockstep([run.online(masked) for run in runs])
        ]
        found = reveal(program, SECURITY, sent, client.output_masks, client.key_commitments)[0]
        logits = fixed_point.decode(found, program.nodes[program.outputs[0]].type.fraction_bits)
        assert np.abs(logits - chosen.model.plain(inputs)).max() < 0.01
        assert all(run.evaluated == program.rounds + 1 for run in runs)
    assert sum(len(vector.data) for vector in itertools.chain(*played.corrections)) == played.dealt_bytes
    dealt = itertools.chain(*dealer.corrections(program, {}, SECURITY, []))
    assert [vector.data for vector in itertools.chain(*made.corrections)] == [array.tobytes() for array in dealt]
    assert played.seconds == max(played.computing.values()) and min(played.computing.values()) > 0


def test_threads_share_a_processor() -> None:
    """Twice as long, and the short one at half the speed until it is over: once of ten times, on a busy machine."""

    def as_they_should() -> bool:
        processor, ended = Processor(2.0), {}

        def compute(name: str, seconds: float) -> None:
            processor.compute(seconds)
            ended[name] = time.monotonic() - started

        started = time.monotonic()
        threads = [threading.Thread(target=compute, args=one) for one in (("long", 0.1), ("short", 0.025))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        busy = processor.busy_until_now()
        return 0.09 < ended["short"] < 0.13 and 0.24 < ended["long"] < 0.28 and abs(busy - ended["long"]) < 0.02

    assert any(as_they_should() for _ in range(10))


def test_more_workers_than_are_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "workers", "--workers", "1", "257"]) == 2
    assert "at most 256 are simulated" in capsys.readouterr().err
    assert main(["bench", "workers", "--stretch", "0"]) == 2


@pytest.mark.slow
def test_a_simulation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.jsonl"
    arguments = ["bench", "workers", "--workers", "2", "--rounds", "2", "--stretch", "50"]
    assert main([*arguments, "--json", "--out", str(path)]) == 0
    summary: dict[str, Any] = json.loads(capsys.readouterr().out)
    (point,) = summary["points"]
    assert (point["workers"], point["runs"], summary["stretch"]) == (2, 4, 50)
    assert 0.1 < point["efficiency"] <= 1.05
    heads = {"party0", "party1", "dealer"}
    assert heads < point["cpu_seconds"].keys()
    assert summary["limit"].keys() == summary["computing"].keys() == heads
    assert all(
        summary["limit"][name] * point["cpu_seconds"][name] == pytest.approx(max(summary["computing"].values()))
        for name in heads
    )
    first, other = read(path)
    assert first.figures["computing.party1"] == summary["computing"]["party1"]
    assert (other.case["workers"], other.figures["efficiency"]) == (2, point["efficiency"])
