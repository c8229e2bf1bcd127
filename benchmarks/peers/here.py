"""Tessera in the comparison: dealer, parties and client as they ship, encryption on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers.cases import CASES, Arrays, Case
from benchmarks.peers.catalogue import System
from benchmarks.peers.runner import Failed, Lacks
from benchmarks.session import Measured, measure, session
from mpc.errors import TesseraError
from parties import Client, DataSet
from parties.wire.version import package_version
from protocols.trace.secret_tensor import SecretTensor

OPERATIONS: dict[str, Callable[..., SecretTensor]] = {
    "multiply": lambda x, y: x * y,
    "matmul": lambda x, y: x @ y,
    "sigmoid": lambda x: x.sigmoid(),
    "exp": lambda x: x.exp(),
    "relu": lambda x: x.relu(),
    "max_pool2d": lambda x: x.max_pool2d(2),
    "argmax": lambda x: x.argmax(axis=1),
    "softmax": lambda x: x.softmax(axis=1),
}


class Here:
    """A ``Worker``.  The parties' own limits on time hold, rather than one for each request."""

    def __init__(self, system: System, limit: float) -> None:
        self._stack = contextlib.ExitStack()
        try:
            self._client: Client = self._stack.enter_context(session(system.parties, system.security, limit))
        except TesseraError as error:
            raise Failed(str(error)) from error
        self._result: Callable[[], SecretTensor] | None = None

    def ask(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        try:
            if request["do"] == "open":
                return self._open(CASES[request["case"]["name"]])
            if request["do"] == "run" and self._result is not None:
                return _times(measure(self._client, self._result()))
        except TesseraError as error:
            raise Failed(str(error)) from error
        raise Failed(f"there is nothing to {request['do']}")

    def _open(self, case: Case) -> dict[str, Any]:
        arrays = case.arrays()
        whole = self._whole(case, arrays)
        self._result = (lambda: whole().reshape(-1)[:1]) if case.held else whole
        measured = measure(self._client, whole())
        error = float(np.abs(measured.values - arrays["expected"]).max())
        if case.held:
            measured = measure(self._client, self._result())
        report, predicted = measured.report, measured.report.predicted
        figures = {
            "online.bytes_per_party": report.online.bytes,
            "online.client_bytes": predicted.online_client_bytes,
            "online.rounds": report.online.rounds,
            "offline.bytes": report.offline.bytes,
            "max_abs_error": error,
        }
        return {"figures": figures, **_times(measured), "version": package_version()}

    def _whole(self, case: Case, arrays: Arrays) -> Callable[[], SecretTensor]:
        """What writes the result, all of it, for a run."""
        if case.kind == "cnn":
            remote = self._client.upload(case.subject().model, case.name)
            return lambda: remote(self._client.share(arrays["x"], low=case.low, high=case.high))
        if case.kind not in OPERATIONS:
            raise Lacks(f"it has no {case.kind}")
        operands = {name: arrays[name] for name in ("x", "y") if name in arrays}
        placed = self._held(operands, case) if case.held else self._shared(operands, case)
        return lambda: OPERATIONS[case.kind](*placed())

    def _shared(self, operands: Arrays, case: Case) -> Callable[[], list[SecretTensor]]:
        """From the client, anew for each run."""
        return lambda: [self._client.share(a, low=case.low, high=case.high) for a in operands.values()]

    def _held(self, operands: Arrays, case: Case) -> Callable[[], list[SecretTensor]]:
        """At the parties, as shares that nobody has opened yet, as a former operation of the same run leaves them.

        Here that operation is a product of what is stored, by one, which is made before the online phase.
        """
        self._client.upload(DataSet(operands, low=case.low, high=case.high), "operands")
        self._client.upload(DataSet({"one": 1.0}, low=1, high=1, fraction_bits=0), "factor")
        stored, factor = self._client.data("operands"), self._client.data("factor")
        return lambda: [stored[name] * factor["one"] for name in operands]

    def close(self) -> None:
        self._stack.close()


def _times(measured: Measured) -> dict[str, float]:
    """``evaluation_seconds``: computing and waiting of the slowest party, without the client and the way to it."""
    report = measured.report
    computing = sum(layer.seconds for layer in report.layers.values())
    return {
        "seconds": report.online.seconds,
        "offline_seconds": report.offline.seconds,
        "evaluation_seconds": computing + report.wait_seconds,
    }
