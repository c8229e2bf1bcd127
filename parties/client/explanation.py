"""A program in words, for who is asked to let it run: computed here, from the program itself.

Names and constants in a program are its author's; what is said of it here follows from its operations alone
(`protocols.readings.explain`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mpc.errors import TesseraError
from mpc.operation import Constant, Input, Stored
from mpc.program import Program
from nn.model import Description
from protocols.lowering.intervals import is_gated
from protocols.readings.explain import MOST_COMBINED, Examined, Form, Telling
from protocols.readings.trial import results, sources

LOUD = "!! "
"""What a line begins with that nobody should pass over."""

_GATED = ", unless a value has left the interval of a function, or the range assumed of it: then nothing of it"

_WORDS = {
    "matmul": "matrix product",
    "conv2d": "convolution",
    "multiply": "product",
    "add": "sum of two",
    "subtract": "difference",
    "sum": "sum along axes",
    "sum_pool2d": "pooling",
    "index": "selection of some rows or columns",
    "polynomial": "polynomial",
    "truncated_polynomial": "polynomial",
    "fourier": "curve (as a trigonometric series)",
    "compare": "comparison",
    "signed": "comparison",
    "lifted": "comparison",
    "gate": "choice by a comparison",
    "one_hot": "look-up by a secret number",
}
"""Operations that say what is computed; the others prepare for them, or lay out again what is there."""


@dataclass(frozen=True)
class Source:
    """A tensor of a stored secret that goes in."""

    slot: str
    tensor: str
    shape: tuple[int, ...]
    low: float
    high: float
    drawn: int = 0
    """Rows of it that one run reads, if not all of them."""

    @property
    def owner(self) -> str:
        """The client's name in the cluster file."""
        return self.slot.partition("/")[0]

    @property
    def read(self) -> tuple[int, ...]:
        """The shape of what one run reads of it."""
        return (self.drawn, *self.shape[1:]) if self.drawn else self.shape

    @property
    def rows(self) -> int:
        """That one run reads: people, or whatever else a data set has a row of."""
        return self.read[0] if self.read else 1

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shape)) or "one number"
        drawn = f"; {_count(self.drawn, 'row')} of it, others in each run" if self.drawn else ""
        return f"{self.slot} {self.tensor!r}: {shape}, in [{self.low:g}, {self.high:g}]{drawn}"


@dataclass(frozen=True)
class Result:
    """What is revealed, or kept under a name."""

    number: int
    """From 1."""
    kept: str
    """The name that it is kept under; empty if it is revealed."""
    shape: tuple[int, ...]
    numbers: int
    reads: tuple[Source, ...]
    """All that it depends on."""
    per_row: tuple[tuple[Source, float], ...]
    """Of that, what has rows, and how many of its numbers there are for each of them."""
    flag: bool = False
    """It says only of each of its numbers whether that is 0."""
    gated: bool = False
    """It is given where all values are where they are taken to be, and nothing of it where not."""
    joint: bool = False
    """Kept, it belongs to all whose secrets the program reads."""
    model: bool = False
    """And it is a tensor of a model, which the program describes."""

    def line(self, client: str) -> str:
        """What becomes of it."""
        shape = f" ({' x '.join(map(str, self.shape))})" if len(self.shape) > 1 else ""
        what = f"{_count(self.numbers, 'number')}{shape}: result {self.number}"
        if self.flag:
            return f"gives    {client} {what}: only whether it is 0, such as how many values left their intervals"
        if not self.kept:
            return f"gives    {client} {what}{_GATED if self.gated else ''}"
        of = "model" if self.model else "data set"
        kept = f"as {self.kept!r} of a {of} of {client}'s, to reveal or to allow to others"
        if self.joint:
            kept = (
                f"as {self.kept!r} of a {of} that belongs to all whose secrets the program reads: nobody uses it,"
                f" {client} included, without the leave of each"
            )
        return f"keeps    {what}, {kept}{_GATED if self.gated else ''}"


@dataclass(frozen=True)
class Explanation:
    """What a program does; ``str`` of it is what `tessera show` prints."""

    program: str
    """Its digest."""
    client: str
    """To whom its results go."""
    sources: tuple[Source, ...]
    inputs: int
    """Numbers that the client puts in."""
    public_numbers: int
    """In the program itself: chosen by its author."""
    operations: tuple[tuple[str, int], ...]
    rounds: int
    results: tuple[Result, ...]
    model: str
    """The architecture of what it keeps, if that is a model."""
    warnings: tuple[str, ...]
    """Each a sentence; those that say that data can be read begin with `LOUD`."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "program": self.program,
            "client": self.client,
            "reads": [
                {
                    "secret": s.slot,
                    "tensor": s.tensor,
                    "shape": list(s.shape),
                    "drawn": s.drawn,
                    "low": s.low,
                    "high": s.high,
                }
                for s in self.sources
            ],
            "inputs": self.inputs,
            "public_numbers": self.public_numbers,
            "operations": dict(self.operations),
            "rounds": self.rounds,
            "results": [
                {
                    "kept": r.kept,
                    "joint": r.joint,
                    "shape": list(r.shape),
                    "numbers": r.numbers,
                    "flag": r.flag,
                    "gated": r.gated,
                    "numbers_per_row": [{"secret": s.slot, "tensor": s.tensor, "numbers": n} for s, n in r.per_row],
                }
                for r in self.results
            ],
            "model": self.model,
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        lines = [f"program {self.program}", *(f"reads    {source}" for source in self.sources)]
        if self.inputs:
            lines.append(f"         and {_count(self.inputs, 'number')} that {self.client} puts in")
        done = ", ".join(f"{word} x {n}" if n > 1 else word for word, n in self.operations)
        public = f"; with {_count(self.public_numbers, 'number')} of its author's choice" if self.public_numbers else ""
        lines.append(f"does     {done or 'nothing but laying out numbers anew'}{public}")
        for result in self.results:
            lines.append(result.line(self.client))
            lines += [
                f"         {share:,.3g} for each of the {source.rows} rows{' that a run draws' if source.drawn else ''}"
                f" of {source.slot} {source.tensor!r}"
                for source, share in result.per_row
            ]
        if self.model:
            lines += [f"         {line}" for line in f"of {self.model}".splitlines()]
        return "\n".join([*lines, *self.warnings])


def explained(program: Program, client: str, models: Collection[str] = (), joint: Collection[str] = ()) -> Explanation:
    """``program`` in words, when ``client`` asks to run it; ``models`` are slots that have weights, and no rows, and
    what lies in ``joint`` ones belongs to others as well as to who has the name.

    Takes a second or so for one of millions of numbers, and a minute at most.
    """
    nodes, goes_in = program.nodes, sources(program)
    found = {i: _source(node.operation) for i, node in enumerate(nodes) if isinstance(node.operation, Stored)}
    kept = [""] * len(program.outputs) + list(program.kept)
    told, hangs = list[Result](), any(n.operation.settles and not n.operation.checks for n in nodes)
    for number, (i, name) in enumerate(zip(results(program), kept, strict=True), start=1):
        t = nodes[i].type
        reads = dict.fromkeys(found[j] for j in sorted(goes_in[i]) if j in found)
        per_row = tuple((source, t.size / max(source.rows, 1)) for source in reads if source.slot not in models)
        flag, gated = nodes[i].operation.flags, nodes[i].operation.gates or (bool(name) and hangs)
        together, model = bool(name) and program.keeping.joint, bool(name and program.keeping.description)
        told.append(Result(number, name, t.shape, t.size, tuple(reads), per_row, flag, gated, together, model))
    words = Counter(_WORDS[n.operation.name] for n in nodes if n.operation.name in _WORDS)
    return Explanation(
        program=program.digest,
        client=client,
        sources=tuple(dict.fromkeys(found.values())),
        inputs=sum(n.type.size for n in nodes if isinstance(n.operation, Input)),
        public_numbers=sum(n.type.size for n in nodes if isinstance(n.operation, Constant)),
        operations=tuple(words.most_common()),
        rounds=program.rounds,
        results=tuple(told),
        model=_architecture(program),
        warnings=tuple(_warnings(program, client, told, list(dict.fromkeys(found.values())), models, joint)),
    )


def _architecture(program: Program) -> str:
    says = program.keeping.description
    if not says:
        return ""
    try:
        return repr(Description.decode(says).architecture)
    except TesseraError:
        return "what nobody can read, and no party keeps"


def _source(operation: Stored) -> Source:
    drawn = operation.shape[0] if operation.rows else 0
    return Source(operation.slot, operation.tensor, operation.whole, operation.low, operation.high, drawn)


def _warnings(
    program: Program,
    client: str,
    told: Sequence[Result],
    found: Sequence[Source],
    models: Collection[str],
    joint: Collection[str],
) -> Iterable[str]:
    """Of all that is not the client's own alone together, and, where there are several owners, of each one's."""
    others = [source for source in found if source.owner != client or source.slot in joint]
    owners = list(dict.fromkeys(source.owner for source in others))
    groups = [owners] if len(owners) < 2 else [owners, *([owner] for owner in owners)]
    examined, said, in_sums, tried = Examined(program), set[int](), 0, True
    if not is_gated(program):
        yield f"{LOUD}values are taken to lie in ranges, and results given whether they do or not: no server runs it"
    if astray := examined.astray():
        yield (
            f"{LOUD}{_count(astray, 'number')} on the way {'leaves' if astray == 1 else 'leave'} the range that is"
            " declared: then it computes, and tells, something else than it says"
        )
    for group in groups:
        slots = dict.fromkeys(source.slot for source in others if source.owner in group)
        for result, told_of_it in zip(told, examined.telling(slots), strict=True):
            tried &= told_of_it.tried
            theirs = [source for source in result.reads if source.slot in slots]
            line = _line(client, result, told_of_it, theirs, alone=len(group) == len(owners))
            # What all of them together give away, each of them does.
            if line and result.number not in said:
                yield line
                if len(group) == len(owners):
                    said.add(result.number)
        hidden = examined.combined(slots) or 0
        if hidden > in_sums:
            in_sums = hidden
            who = client if len(group) == len(owners) else f"{client}, knowing what the others put in,"
            yield (
                f"{LOUD}all results: {hidden} more numbers that are LINEAR in {' and '.join(slots)} are sums of theirs,"
                f" which {who} can form"
            )
    groups_of_rows = ((source.slot, source.rows) for source in others if source.rows > 1 and source.slot not in models)
    numbers = sum(result.numbers for result in told)
    if numbers > MOST_COMBINED:
        yield f"!  {numbers:,} numbers are too many to look at their sums, which may tell what none of them does"
    for slot, rows in dict.fromkeys(groups_of_rows):
        sizes = examined.crowds(slot, rows)
        tried &= sizes is not None
        for result, few in zip(told, sizes or (), strict=False):
            if few is not None:
                whom = "ONE ROW" if few == 1 else f"about {few} ROWS"
                yield f"{LOUD}result {result.number}: some of its numbers are of {whom} of {slot} alone"
    for result in told:
        drawn = dict.fromkeys(source.slot for source in result.reads if source.drawn and source in others)
        if drawn and not result.joint:
            yield (
                f"{LOUD}result {result.number}: each run tells it of OTHER ROWS of {' and '.join(drawn)}, in the end of"
                f" all: count the runs that you allow {client} (tessera allow --runs)"
            )
    if not tried:
        yield "!  it is too large to be tried: what may be hidden in its arithmetic was not looked for"


def _line(client: str, result: Result, told: Telling, theirs: Sequence[Source], *, alone: bool) -> str:
    """What can be read of theirs from a result; empty if nothing is seen."""
    names = " and ".join(dict.fromkeys(source.slot for source in theirs))
    size = sum(math.prod(source.read) for source in theirs)
    what, who = f"{LOUD}result {result.number}", client if alone else f"{client}, knowing what the others put in,"
    if told.copied:
        return f"{what}: {told.copied} of its numbers ARE numbers of {names}, for {client} to read"
    if told.linear:
        much = "as many as there are unknowns" if told.linear >= size else f"and there are {size} unknowns"
        numbers = "1 of its numbers is" if told.linear == 1 else f"{told.linear} of its numbers are"
        equations = "an equation" if told.linear == 1 else "equations"
        return f"{what}: {numbers} LINEAR in {names}: {equations} that {who} can solve for what is in there, {much}"
    if told.nearly:
        return (
            f"{what}: {told.nearly} of its numbers are NEARLY LINEAR in {names}, over the ranges that are declared:"
            f" equations, all but exact, that {who} can solve for what is in there"
        )
    if told.form is Form.BENT:
        return (
            f"{what}: each of its numbers is a curve of ONE number that is LINEAR in {names}: where it can be inverted,"
            f" {who} has that one"
        )
    if told.form and told.numbers >= size:
        return f"{what}: it has {told.numbers} numbers, and {names} has {size}: as many equations as unknowns"
    return ""


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
