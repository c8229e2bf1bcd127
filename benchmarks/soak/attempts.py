"""What a soak keeps of everything that was asked of the cluster and done to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PREDICT, STOCK = "predict", "stock"

TOLERANCE = 0.01
"""Of a logit, beside the same in float64.  Logits of the network that ships are between -20 and 20; with 16 fraction
bits the parties' are within 0.002 of them."""


@dataclass(frozen=True)
class Attempt:
    """One order to one client; times in s since the soak began."""

    client: str
    kind: str
    phase: str
    began: float
    ended: float
    error: str = ""
    """The class of the error; empty where it succeeded."""
    typed: bool = True
    """Whether that is one of ``mpc.errors``, and says more than ``TesseraError`` does."""
    peer: str = ""
    """Whom the error names, if it names one."""
    message: str = ""
    difference: float = 0.0
    """The largest of a logit to the same in float64, of a prediction that was answered."""
    same_class: bool = True
    from_stock: bool = False
    first: bool = False
    """Whether it is the first of its process, and so includes connecting and learning of the model."""

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def answered(self) -> bool:
        """Whether it is a prediction that was answered."""
        return self.kind == PREDICT and not self.error

    @property
    def right(self) -> bool:
        """Whether the answer is what the network says."""
        return self.difference <= TOLERANCE and self.same_class


@dataclass(frozen=True)
class Outage:
    """Something done to one process, until it served again; times in s since the soak began."""

    member: str
    fault: str
    began: float
    ended: float


@dataclass(frozen=True)
class Interval:
    """A time, in s since the soak began."""

    began: float
    ended: float

    def overlaps(self, attempt: Attempt) -> bool:
        return attempt.began < self.ended and self.began < attempt.ended


def disturbed(outages: Iterable[Outage]) -> list[Interval]:
    """When something was down: outages that overlap are one."""
    merged: list[Interval] = []
    for outage in sorted(outages, key=lambda outage: outage.began):
        if merged and outage.began <= merged[-1].ended:
            merged[-1] = Interval(merged[-1].began, max(merged[-1].ended, outage.ended))
        else:
            merged.append(Interval(outage.began, outage.ended))
    return merged


def calm(attempts: Iterable[Attempt], outages: Iterable[Outage]) -> list[Attempt]:
    """Those during which nothing was down."""
    intervals = disturbed(outages)
    return [attempt for attempt in attempts if not any(interval.overlaps(attempt) for interval in intervals)]


def recoveries(attempts: Sequence[Attempt], outages: Iterable[Outage]) -> list[float]:
    """s from the end of each time when something was down to the next answer, if it came before the next such time."""
    intervals = disturbed(outages)
    answers = sorted(attempt.ended for attempt in attempts if attempt.answered)
    found = []
    for i, interval in enumerate(intervals):
        until = intervals[i + 1].began if i + 1 < len(intervals) else float("inf")
        answer = next((ended for ended in answers if ended > interval.ended), None)
        if answer is not None and answer <= until:
            found.append(answer - interval.ended)
    return found
