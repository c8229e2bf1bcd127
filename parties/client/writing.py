"""From what is computed to the program that computes it: at once, or, where that takes long, beside the event loop.

A client's event loop answers pings, and has its other calls go on: what takes longer than they can wait is done by a
thread.  What is short is done where it is: a thread costs more than the whole planning of a small network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from mpc.errors import UsageError
from mpc.objective import LATENCY, STEPS, Objective
from mpc.program import Program
from mpc.program_format import Keeping
from nn.model import Description
from protocols.lowering.plan import leaves, plan
from protocols.trace.mathematics import Graph, Node
from protocols.trace.secret_tensor import SecretTensor, graph_of

Result = TypeVar("Result")

Results = SecretTensor | Sequence[SecretTensor] | Mapping[str, SecretTensor]
"""What a program computes: to be revealed, or, under names, to be kept."""

MANY_NODES, MANY_ELEMENTS = 200, 1 << 18
"""From so many on, work on each of them is long: some 10 ms."""


class Written(NamedTuple):
    """A program, and the leaves of what it was written as, in its order."""

    program: Program
    leaves: Sequence[Node]


class Kept(dict[str, SecretTensor]):
    """Results by name, to be kept, with what is said of them (``mpc.program.Keeping``).

    ``joint``: for all together whose secrets they come of: nobody uses them without the leave of each, who runs the
    program, and has the name, included.  ``description``: they are the tensors of a model, which it describes.
    ``revealed``: what is revealed beside, by the same run.  ``steps``: they are made again and again, so that what is
    dealt counts for more.
    """

    def __init__(
        self,
        results: Mapping[str, SecretTensor],
        *,
        joint: bool = False,
        description: Description | None = None,
        revealed: Sequence[SecretTensor] = (),
        steps: bool = False,
    ) -> None:
        super().__init__(results)
        self.revealed = tuple(revealed)
        self._steps = steps
        self.planned: dict[Objective, Written] = {}
        """The program that keeps them, once it has been made, by what for."""
        self.keeping = Keeping(joint, b"" if description is None else description.encode())

    def objective(self, wanted: Objective) -> Objective:
        """What they are planned for, where the client wants fewest rounds; or a link of its own to count."""
        usual = self._steps and wanted.round_bytes == LATENCY.round_bytes
        return Objective(STEPS, wanted.security) if usual else wanted


def write(result: Results, objective: Objective) -> Written:
    """The program that computes ``result``, or keeps what is in a mapping.  Raises UsageError, RangeError."""
    if isinstance(result, Kept):
        objective = result.objective(objective)
        if objective not in result.planned:
            result.planned[objective] = _planned(graph_of(result.revealed, result, result.keeping), objective)
        return result.planned[objective]
    tensors = tensors_of(result)
    return _planned(graph_of([], result) if isinstance(result, Mapping) else graph_of(tensors), objective)


def _planned(graph: Graph, objective: Objective) -> Written:
    return Written(plan(graph, objective, checked=True), leaves(graph, objective))


def tensors_of(result: Results) -> list[SecretTensor]:
    """All of them.  Raises UsageError for what is none."""
    outputs: Sequence[object] = [result]
    if isinstance(result, Mapping):
        outputs = list(result.values())
    elif isinstance(result, list | tuple):
        outputs = result
    if not outputs:
        raise UsageError("there is nothing to compute: give at least one tensor")
    tensors = [output for output in outputs if isinstance(output, SecretTensor)]
    if len(tensors) < len(outputs):
        stray = next(output for output in outputs if not isinstance(output, SecretTensor))
        raise UsageError(
            f"{type(stray).__name__} is no secret tensor, and there is nothing to compute of it: give what"
            " client.share, or a function of such tensors, has returned"
        )
    return tensors


def takes_long(result: Results) -> bool:
    """Whether to plan it takes long: no more is looked at than it takes to say so."""
    found, stack = set[int](), [tensor.node for tensor in tensors_of(result)]
    while stack and len(found) < MANY_NODES:
        node = stack.pop()
        if node.number not in found:
            found.add(node.number)
            stack.extend(node.inputs)
    return len(found) >= MANY_NODES


def is_long(program: Program) -> bool:
    """Whether it takes long to do something for each node of it."""
    return len(program.nodes) >= MANY_NODES


def moves_much(program: Program) -> bool:
    """Whether its client sends and gets many numbers, or the program itself is long."""
    return is_long(program) or _size(program, program.supplied) + _size(program, program.results) >= MANY_ELEMENTS


def _size(program: Program, nodes: Iterable[int]) -> int:
    return sum(program.nodes[i].type.size for i in nodes)


async def beside(work: Callable[[], Result], *, long: bool) -> Result:
    """``work()``, by a thread where it takes long."""
    return await asyncio.to_thread(work) if long else work()
