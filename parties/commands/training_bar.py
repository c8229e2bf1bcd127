"""A training in a terminal: how far it is, how long it will take, and the curve of what it reveals, as it comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from parties.client.progress import Progress as Made
from parties.commands.curve import curve, plot

ROWS = 4
"""Of the curve below the bar."""


class TrainingBar:
    """On stderr, if that is a terminal; elsewhere nothing, since each checkpoint has a line of its own there."""

    def __init__(self, steps: int, done: int, *, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar = _Bar(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console, disable=not self.live, transient=True, auto_refresh=self.live,
        )  # fmt: skip
        self._task = self._bar.add_task("training", total=steps, completed=done)

    @property
    def live(self) -> bool:
        """Whether anybody sees it."""
        return self._console.is_terminal

    def __enter__(self) -> TrainingBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, made: Sequence[Made]) -> None:
        """How far it is, and what has been revealed."""
        last = made[-1]
        self._bar.below = list(live(made, min(64, self._console.width - 24)))
        self._bar.update(self._task, completed=last.step, description=f"epoch {last.epoch:.2f}")


class _Bar(Progress):
    below: Sequence[str] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield from map(Text, self.below)


def revealed(made: Sequence[Made]) -> Iterator[tuple[str, list[float], str]]:
    """Of each thing that is revealed: what it is called, its values, and how they are written."""
    losses = [each.loss for each in made if each.loss is not None]
    balanced = [each.scores.balanced for each in made if each.scores is not None]
    if losses:
        yield "loss", losses, ".4f"
    if balanced:
        yield "balanced", balanced, ".1%"


def live(made: Sequence[Made], width: int) -> Iterator[str]:
    """The first of them as a curve of dots, with its ends beside it; others in a line."""
    for number, (name, values, form) in enumerate(revealed(made)):
        if number:
            yield f"{name:9} {curve(values, width)} {values[-1]:{form}}"
            continue
        sides = [f" {max(values):{form}}", *[""] * (ROWS - 2), f" {min(values):{form}}"]
        names = [name, f"{values[-1]:{form}}", *[""] * (ROWS - 2)]
        lines = plot(values, width, ROWS)
        yield from (f"{left:9} {line}{side}" for left, line, side in zip(names, lines, sides, strict=True))


def line(made: Made) -> str:
    """A checkpoint, in a line."""
    said = [f"{made.step:,} of {made.steps:,} steps", f"epoch {made.epoch:.2f}"]
    if made.loss is not None:
        said.append(f"loss {made.loss:.4f}")
    if made.scores is not None:
        said.append(f"{made.scores.accuracy:.1%} right, {made.scores.balanced:.1%} balanced")
    return ", ".join(said)


def curves(made: Sequence[Made]) -> Iterator[str]:
    """Of what is revealed, from the first checkpoint to the last."""
    for name, values, form in revealed(made):
        yield f"{name:9} {curve(values)}  {values[0]:{form}} to {values[-1]:{form}}"
