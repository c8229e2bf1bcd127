"""The section about accuracy: errors of approximations, and of a whole network by fraction bits."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.page.parts import BASE, OUT, Measurements, Section, error, number, size, table
from benchmarks.page.plots import Line, Panel, Pictures, middle
from benchmarks.records import Record

ERRORS = {"difference": "largest", "rms_difference": "rms", "exact.difference": "largest, to the exact sigmoid"}
"""Figures that are drawn, and what they are called."""


def by_fraction_bits(measurements: Measurements, pictures: Pictures) -> Section:
    """What precision costs in predictions, and what approximations lose."""
    models = sorted(measurements.of("accuracy", part="model"), key=lambda r: (r.case["data"], r.case["fraction_bits"]))
    functions = measurements.of("accuracy", part="approximation")
    section = Section(
        "Accuracy",
        "Fixed point has so many fraction bits (`x.precise(bits)`; usually 16), and functions are approximated.  The"
        " parties' own code runs here in one process: what comes out is what processes would send.",
        _commands(models),
        [*models, *functions],
    )
    if models:
        _network(section, pictures, models)
    if functions:
        headings = ["method", "interval", "error of the fit", "largest error", "rms error", "rounds", "opened", "dealt"]
        rows = [
            [str(r.case["function"]), str(r.case["method"]), f"[{r.case['low']:g}, {r.case['high']:g}]",
             *(error(r.figures.get(f"{name}_error")) for name in ("fit", "max", "rms")),
             *(number(r.figures.get(name)) for name in ("rounds", "opened", "dealt"))]
            for r in functions
        ]  # fmt: skip
        section.add("### Functions", table("function", headings, rows))
        section.add(
            "On a dense grid over the interval, against the true function, with 16 fraction bits; the error of the fit"
            " alone is that of float64.  Rounds, elements opened and elements dealt are those of one element that is a"
            " result itself and has to be opened first."
        )
    return section


def _network(section: Section, pictures: Pictures, records: Sequence[Record]) -> None:
    most = max(middle(r.figures["images"]) for r in records)
    drawn = [r for r in records if middle(r.figures["images"]) == most]
    xs = [r.case["fraction_bits"] for r in drawn]
    errors = [Line(title, xs, [r.figures[figure] for r in drawn]) for figure, title in ERRORS.items()]
    agreement = Line("", xs, [100 * middle(r.figures["agree"]) / most for r in drawn])
    panels = [
        Panel("Error of logits", "fraction bits", "beside float64", errors, xs, log_x=False),
        Panel("Predictions that agree", "fraction bits", "%", [agreement], xs, log_x=False, log_y=False, zero=False),
    ]
    shows = f"Error and agreement of {most:,.0f} predictions against fraction bits."
    section.draw(pictures.lines("fraction-bits", panels), shows)
    headings = [
        "agree",
        "largest error",
        "rms error",
        "agree, exact sigmoid",
        "largest error",
        "accuracy",
        "sent per party",
    ]
    rows = [
        [f"{r.case['images']:,}, {r.case['fraction_bits']}",
         f"{number(r.figures['agree'])} of {number(r.figures['images'])}",
         error(r.figures["difference"]), error(r.figures["rms_difference"]), number(r.figures["exact.agree"]),
         error(r.figures["exact.difference"]), f"{middle(r.figures['accuracy']):.2%}",
         size(r.figures["online.bytes_per_party"])]
        for r in records
    ]  # fmt: skip
    section.add("### Network", table("images, fraction bits", headings, rows))
    section.add(
        "Agreement and errors are those of the logits to the same network in float64, first with the approximation that"
        " the parties evaluate, then with the exact sigmoid.  Weights keep the bits that they are uploaded with, which"
        " is what is left of the error with many."
    )


def _commands(models: Sequence[Record]) -> list[str]:
    commands = []
    for data in dict.fromkeys(r.case["data"] for r in models):
        bits = [str(r.case["fraction_bits"]) for r in models if r.case["data"] == data]
        words = [] if data == "shipped" else [f"--data {data}"]
        commands.append(" ".join([f"{BASE} accuracy --bits", *bits, *words, OUT]))
    return commands or [f"{BASE} accuracy {OUT}"]
