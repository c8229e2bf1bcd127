"""How far a training has come, and what it has revealed on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mpc.errors import NoAnswer, TesseraError
from parties.client.prepared import Reals
from parties.client.report import RunReport
from parties.messages.jobs import Revealed


class Scores(NamedTuple):
    """Of each class, how many rows there are, and how many of them the network finds."""

    found: Reals
    there: Reals

    @property
    def accuracy(self) -> float:
        """Of all rows."""
        return float(self.found.sum() / self.there.sum())

    @property
    def balanced(self) -> float:
        """The mean of the classes' own, of those that there are."""
        there = self.there > 0.5
        return float((self.found[there] / self.there[there]).mean())


@dataclass(frozen=True)
class Progress:
    """At one checkpoint."""

    step: int
    steps: int
    epoch: float
    """How often each row has been drawn, on average."""
    seconds: float
    """Since it was begun."""
    report: RunReport | None
    """The bill of the run."""
    scores: Scores | None = None
    """Where ``validate`` says what is to be found out."""
    loss: float | None = None
    """Where it is revealed, the mean of those of the run's steps."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {
            "step": self.step,
            "steps": self.steps,
            "epoch": round(self.epoch, 3),
            "seconds": round(self.seconds, 3),
        }
        if self.loss is not None:
            found["loss"] = round(self.loss, 6)
        if self.scores is not None:
            found["accuracy"] = round(self.scores.accuracy, 6)
            found["balanced_accuracy"] = round(self.scores.balanced, 6)
        return found


def told(reveals: Sequence[Revealed], results: Sequence[Reals]) -> tuple[Scores | None, float | None]:
    """What the results of a run say that reveals these, in this order."""
    by_kind = dict(zip(reveals, results, strict=False))
    scores, loss = by_kind.get(Revealed.CLASSES), by_kind.get(Revealed.LOSS)
    return None if scores is None else Scores(*scores), None if loss is None else float(loss)


def in_steps(error: TesseraError, done: int, steps: int) -> TesseraError:
    """A NoAnswer of the run that was to make so many steps after those that are ``done``, naming them; others as they
    are.

    Nobody knows which of several it was.  Of all that is watched in a run one sum is opened, and of it no more is known
    than whether it is 0, since what is beyond adds a uniform number (``protocols.lowering.intervals``): one bit.  Which
    of K steps was the first would be log2(K) bits more, of rows that are known by the step; a run of one step names it.
    """
    if not isinstance(error, NoAnswer):
        return error
    which = f"in steps {done + 1:,} to {done + steps:,}" if steps > 1 else f"in step {done + 1:,}"
    return NoAnswer(f"{error}; {which}, and the network is as it was after step {done:,}")
