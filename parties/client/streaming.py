"""Predictions of many inputs in bounded memory: a batch is split into chunks, and two of them are under way at most.

While one chunk is online, the next is being prepared.  So dealing takes no time of its own as long as it is faster than
the online phase, and what parties, dealer and client occupy does not grow with the batch.
"""

from __future__ import annotations

import asyncio
import bisect
import functools
import math
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mpc.cost import NOTHING, Cost, LayerCost
from mpc.errors import EncodingError, NoAnswer, ShapeError, UsageError
from nn.inputs import TokenInput
from nn.tables import TableInput
from parties.client.prepared import PreparedRun, Reals
from parties.client.remote_model import RemoteModel
from parties.client.report import LayerReport, Phase, RunReport
from parties.tally import merged
from protocols.trace.arguments import declared, whole
from protocols.trace.secret_tensor import SecretTensor
from protocols.trace.sizes import check_public

CHUNK_ELEMENTS = 1 << 23
"""Of the program of one chunk, unless the caller chooses: 64 MiB of field elements.  Larger ones are hardly faster."""


class Runner(Protocol):
    """What ``AsyncClient`` does for a stream."""

    last_run: RunReport | None

    def share(
        self,
        values: npt.ArrayLike,
        *,
        fraction_bits: int | None = ...,
        low: float = ...,
        high: float = ...,
        name: str = ...,
    ) -> SecretTensor:
        """A secret as an expression."""

    async def prepare(self, result: SecretTensor, *, soon: bool = ...) -> PreparedRun:
        """The offline phase of a run."""

    async def finish(self, prepared: PreparedRun) -> Reals | list[Reals]:
        """The online phase, after which ``last_run`` is its bill."""

    async def release(self, prepared: PreparedRun) -> None:
        """Gives up a prepared run."""


class Predicted(NamedTuple):
    """The result of a chunk, NaN where there is no answer, and its bill."""

    values: Reals
    report: RunReport


async def predict(
    client: Runner,
    model: RemoteModel,
    inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    *,
    chunk: int | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Predicted:
    """``model`` of a batch (N, ...), in runs of ``chunk`` inputs, by default of ``fitting`` many.

    The bill is the sum of the runs' bills: phases of different chunks overlap, so the whole takes less time than its
    seconds say.  Raises as ``stream`` does, and UsageError or ShapeError for no inputs and no chunks.
    """
    if not isinstance(model, RemoteModel):
        raise UsageError(
            f"{type(model).__name__} is not a stored model: give what client.model(name), or an upload, has returned"
        )
    if isinstance(inputs, str | bytes | os.PathLike):
        raise UsageError(
            "inputs are arrays, and a file is read first: np.load(path), or model.image_input.load(path)[None] for a"
            " photograph; the command tessera predict takes files"
        )
    parts = inputs if isinstance(inputs, Mapping) else {"": inputs}
    for each in parts.values():
        check_public(each)
    arrays = {name: np.asarray(each) for name, each in parts.items()}
    count = min((len(array) if array.ndim else 0 for array in arrays.values()), default=0)
    if not count:
        raise ShapeError("there is nothing to predict: give a batch (N, ...) of at least one input")
    says, shape = model.description.interface, model.description.input_shape
    single = arrays.get("")
    if single is not None and single.shape == shape:
        raise ShapeError(f"this is one input, of shape {single.shape}, and not a batch of them: write x[None]")
    if low is None and high is None and single is not None and isinstance(says.input, TableInput):
        says.input.check(single, "inputs")
    if says.input is None and low is None and high is None and single is not None:
        _check_unsaid(single)
    low, high, _ = declared(*says.bounds(low, high))
    if single is not None and not isinstance(says.input, TokenInput):
        shape = single.shape[1:]
    size = fitting(model, shape or (), low=low, high=high) if chunk is None else whole(chunk, "chunk")
    if size < 1:
        raise UsageError(f"chunks of {size} inputs: give a number from 1")

    def part(start: int) -> npt.ArrayLike | Mapping[str, npt.ArrayLike]:
        found = {name: array[start : start + size] for name, array in arrays.items()}
        return found if isinstance(inputs, Mapping) else found[""]

    chunks = map(part, range(0, count, size))
    return whole_of([predicted async for predicted in stream(client, model, chunks, low=low, high=high)])


def _check_unsaid(array: npt.NDArray[Any]) -> None:
    """Of inputs whose range nobody has said.  Raises EncodingError; what are no numbers is found out later."""
    if array.dtype.kind in "iuf" and np.isfinite(array).all() and np.abs(array).max(initial=0) > 1:
        raise EncodingError(
            "inputs go beyond [-1, 1], which is taken where nobody says their range, and this model does not: give low="
            " and high= (all values, those to come, too, lie between), or interface= where the model is made"
        )


def whole_of(done: Sequence[Predicted]) -> Predicted:
    """Of all chunks; the bill says which samples of all have no answer."""
    values = np.concatenate([p.values for p in done])
    empty = np.isnan(values).reshape(len(values), -1).any(1)
    return Predicted(values, replace(total([p.report for p in done]), unanswered=tuple(np.flatnonzero(empty).tolist())))


async def stream(
    client: Runner,
    model: RemoteModel,
    chunks: Iterable[npt.ArrayLike | Mapping[str, npt.ArrayLike]],
    *,
    low: float | None = None,
    high: float | None = None,
) -> AsyncIterator[Predicted]:
    """``model`` of one chunk (N, ...) after the other, as ``chunks`` yields them; their values lie in [low, high], by
    default in what the model says, or else in [-1, 1] (``Interface.bounds``).

    A chunk is asked for when the one before it goes online.  If anything fails, or the caller stops early, what is
    prepared is given up.  Raises as ``AsyncClient.share`` and ``reveal`` do.
    """
    says = model.description.interface
    low, high = says.bounds(low, high)
    bits = 0 if says.fraction_bits == 0 else None
    source = iter(chunks)
    under_way: list[asyncio.Task[PreparedRun]] = []

    def prepare_next() -> None:
        for values in source:
            secret = client.share(says.encoded(values), fraction_bits=bits, low=low, high=high, name="inputs")
            under_way.append(asyncio.create_task(client.prepare(model(secret), soon=True)))
            return

    try:
        prepare_next()
        while under_way:
            prepared = await under_way[0]
            prepare_next()
            try:
                values = np.asarray(await client.finish(prepared))
            except NoAnswer:
                # Of none of this chunk: others may have one.
                (result,) = prepared.program.results
                values = np.full(prepared.program.nodes[result].type.shape, np.nan)
            if client.last_run is None:
                raise UsageError("the run left no report")
            del under_way[0]
            yield Predicted(values, client.last_run)
    finally:
        for task in under_way:
            task.cancel()
        for run in await asyncio.gather(*under_way, return_exceptions=True):
            if isinstance(run, PreparedRun):
                await client.release(run)


def fitting(model: RemoteModel, shape: tuple[int, ...], *, low: float | None = None, high: float | None = None) -> int:
    """How many inputs of ``shape`` fit a run of ``CHUNK_ELEMENTS``; at least one."""

    @functools.cache
    def elements(count: int) -> float:
        try:
            return model.description.program((count, *shape), low=low, high=high).elements
        except ShapeError:
            if count == 1:
                raise
            return math.inf  # more than any operation takes

    one = elements(1)
    if one > CHUNK_ELEMENTS:
        return 1
    # Of eight more, packed bits fill whole bytes.
    nine = elements(9)
    count = max(1, 2 + int(8 * (CHUNK_ELEMENTS - one) // max(1, nine - one)))
    # An estimate: of a small model, too many by a thousand.
    beyond, step = count + 1, 1
    while elements(count) > CHUNK_ELEMENTS:
        beyond, count, step = count, max(1, count - step), 2 * step
    return count - 1 + bisect.bisect_right(range(count, beyond), float(CHUNK_ELEMENTS), key=elements)


def total(reports: Sequence[RunReport]) -> RunReport:
    """The bill of several runs of the same kind, summed; from stock if all were."""
    first = reports[0]
    layers: dict[str, LayerReport] = {}
    for report in reports:
        for name, layer in report.layers.items():
            layers[name] = _sum(layers[name], layer) if name in layers else layer
    return RunReport(
        parties=first.parties,
        security=first.security,
        online=_phase([r.online for r in reports]),
        offline=_phase([r.offline for r in reports]),
        dealing_seconds=sum(r.dealing_seconds for r in reports),
        wait_seconds=sum(r.wait_seconds for r in reports),
        layers=layers,
        predicted=_cost([r.predicted for r in reports]),
        from_stock=all(r.from_stock for r in reports),
        runs=sum(r.runs for r in reports),
        in_range=None if None in (said := [r.in_range for r in reports]) else all(said),
        client=first.client,
        links={phase: merged(*(r.links[phase] for r in reports)) for phase in first.links},
    )


def _phase(phases: Sequence[Phase]) -> Phase:
    return Phase(
        sum(p.rounds for p in phases),
        sum(p.messages for p in phases),
        sum(p.bytes for p in phases),
        sum(p.seconds for p in phases),
    )


def _sum(x: LayerReport, y: LayerReport) -> LayerReport:
    return LayerReport(
        x.rounds + y.rounds, x.opened + y.opened, x.dealt + y.dealt, x.bytes + y.bytes, x.seconds + y.seconds
    )


def _cost(costs: Sequence[Cost]) -> Cost:
    first = costs[0]
    layers: dict[str, LayerCost] = {}
    for cost in costs:
        for name, x in cost.layers.items():
            layers[name] = layers.get(name, NOTHING) + x
    return Cost(
        parties=first.parties,
        online_rounds=sum(c.online_rounds for c in costs),
        online_bytes_per_party=sum(c.online_bytes_per_party for c in costs),
        online_client_bytes=sum(c.online_client_bytes for c in costs),
        offline_dealer_bytes=tuple(map(sum, zip(*(c.offline_dealer_bytes for c in costs), strict=True))),
        offline_client_bytes=sum(c.offline_client_bytes for c in costs),
        layers=layers,
        online_output_bytes=sum(c.online_output_bytes for c in costs),
        offline_messages=sum(c.offline_messages for c in costs),
    )
