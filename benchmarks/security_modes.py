"""``tessera bench security``: what malicious security costs beside semi-honest, run by run in one session.

A cluster of each kind runs on this machine; every batch is predicted by one and then by the other, so that whatever
else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.inference import WARM_UP, agreement, predict, test_images
from benchmarks.machine import machine
from benchmarks.records import Recorder, flatten
from benchmarks.report import kilobytes, milliseconds, plain_table, progress_bar, stdout_console
from benchmarks.session import Measured, as_predicted, phases, session
from mpc.security import Security
from nn.derm.model import derm_model


def run(options: argparse.Namespace) -> int:
    """Measure and print; the exit code."""
    recorder = Recorder.of(options)
    model = derm_model()
    images, _ = test_images(options.data, options.images)
    images = images[: options.images]
    batches = [images[start : start + options.batch] for start in range(0, len(images), options.batch)]
    runs: dict[Security, list[Measured]] = {security: [] for security in Security}
    with contextlib.ExitStack() as stack:
        remotes = {}
        for security in Security:
            client = stack.enter_context(session(options.parties, security, options.timeout))
            remotes[security] = client, client.upload(model, "derm")
            for _ in range(WARM_UP):
                predict(*remotes[security], batches[0])
        with progress_bar("predicting", len(batches)) as advance:
            for batch in batches:
                for security, (client, remote) in remotes.items():
                    runs[security].append(predict(client, remote, batch))
                advance()
    semi_honest, malicious = runs[Security.SEMI_HONEST], runs[Security.MALICIOUS]
    logits = {security: np.concatenate([r.values for r in measured]) for security, measured in runs.items()}
    # A last batch that is not full has figures of its own.
    full = [i for i, r in enumerate(malicious) if len(r.values) == len(malicious[0].values)]
    summary = {
        "model": "derm",
        "parties": options.parties,
        "batch": len(malicious[0].values),
        "malicious_beside_semi_honest": agreement(logits[Security.MALICIOUS], logits[Security.SEMI_HONEST]),
        "malicious_beside_plain": agreement(logits[Security.MALICIOUS], model.plain(images)),
        **{str(security): phases([measured[i].report for i in full]) for security, measured in runs.items()},
        "ratio": _ratios([semi_honest[i] for i in full], [malicious[i] for i in full]),
        "as_predicted": all(as_predicted(r.report) for measured in runs.values() for r in measured),
        "machine": machine(),
    }
    case = {"model": "derm", "shape": list(images.shape[1:]), "batch": summary["batch"], "parties": options.parties}
    recorder.add("security", case, flatten(summary, *Security, "ratio", "malicious_beside_semi_honest"))
    if options.json:
        recorder.print_json(summary)
    else:
        _print(summary)
    return recorder.finish()


def _ratios(semi_honest: Sequence[Measured], malicious: Sequence[Measured]) -> dict[str, float]:
    """Of medians, malicious to semi-honest; ``more_rounds`` is the difference."""

    def median(runs: Sequence[Measured], phase: str) -> float:
        return float(np.median([getattr(r.report, phase).seconds for r in runs]))

    first, second = semi_honest[0].report, malicious[0].report
    return {
        "online_seconds": median(malicious, "online") / median(semi_honest, "online"),
        "online_bytes": second.online.bytes / first.online.bytes,
        "offline_seconds": median(malicious, "offline") / median(semi_honest, "offline"),
        "offline_bytes": second.offline.bytes / first.offline.bytes,
        "more_rounds": second.online.rounds - first.online.rounds,
    }


def _print(summary: dict[str, Any]) -> None:
    console = stdout_console()
    same = summary["malicious_beside_semi_honest"]
    console.print(f"{summary['model']}, batch of {summary['batch']}, {summary['parties']} parties and a dealer")
    table = plain_table("phase", "rounds", "payload", "median", "min", "max")
    for security in Security:
        for name, size in (("online", "bytes_per_party"), ("offline", "bytes")):
            phase = summary[security][name]
            times = [milliseconds(phase["seconds"][key]) for key in ("median", "min", "max")]
            table.add_row(f"{name}, {security}", str(phase.get("rounds", "")), kilobytes(phase[size]), *times)
    console.print(table)
    ratio = summary["ratio"]
    console.print(
        f"malicious to semi-honest: online {ratio['online_seconds']:.2f}x the time, {ratio['online_bytes']:.3f}x the"
        f" bytes, {ratio['more_rounds']:.0f} rounds more; offline {ratio['offline_seconds']:.2f}x and"
        f" {ratio['offline_bytes']:.2f}x"
    )
    console.print(
        f"{same['agree']} of {same['images']} predictions are the same, largest logit difference"
        f" {same['max_abs_difference']:.1e}.  Not for diagnosis."
    )
