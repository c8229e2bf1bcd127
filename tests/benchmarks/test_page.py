"""The benchmarks' page: figures as they were recorded, pictures in both formats, the same files every time."""

from __future__ import annotations

import functools
import json
import re
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks.network.bench import NOTHING, Condition
from benchmarks.page.parts import Measurements, seconds, size
from benchmarks.page.peers import _ahead
from benchmarks.page.writing import SECTIONS
from benchmarks.records import Record, write
from mpc.cost import Link
from mpc.security import Security
from parties.commands.command_line import main

MACHINE = {"processor": "a test's", "cores": 2, "system": "Linux", "python": "3.11", "numpy": "2", "load": 0.5}
PICTURES = (
    "cost-by-layer", "round-trip-time", "image-size", "throughput", "security", "peers-time", "peers-bytes",
    "fraction-bits",
)  # fmt: skip


def spread(median: float) -> dict[str, float]:
    return {"median": median, "min": 0.9 * median, "max": 1.2 * median, "count": 10}


def record(bench: str, case: dict[str, Any], figures: dict[str, Any], **about: Any) -> Record:
    return Record(bench, case, figures, MACHINE, "0.1.0", "2026-01-31T12:00:00+00:00", about)


def network_case(batch: int = 1, side: int = 28) -> dict[str, Any]:
    return {
        "model": "derm", "weights": "shipped" if side == 28 else "random", "shape": [3, side, side], "batch": batch,
        "parties": 2, "security": "semi-honest",
    }  # fmt: skip


@functools.cache
def inference() -> list[Record]:
    from benchmarks.models import derm
    from benchmarks.prediction import predicted
    from benchmarks.records import flatten

    expected = predicted(derm().cost(1, 2, Security.SEMI_HONEST), 1)
    figures = flatten(expected, "online", "offline", "layers") | {
        "online.seconds": spread(0.0061), "offline.seconds": spread(0.013),
        "breakdown.waiting": spread(0.002), "breakdown.rest": spread(0.0016),
        **{f"layers.{layer}.seconds": spread(0.0004) for layer in expected["layers"]},
        "wire.online.party0>party1.messages": 6, "wire.online.party0>party1.payload": 189_184,
        "wire.online.party0>party1.bytes": spread(190_354.0), "wire.online.party0>party1.packets": spread(17.0),
    }  # fmt: skip
    return [record("inference", network_case(), figures)]


def networks() -> list[Record]:
    conditions = [NOTHING, Condition("WAN", Link(40e-3, 100e6), Link(40e-3, 100e6))]
    conditions += [Condition(f"{rtt} ms, 1000 Mbit/s", *[Link(rtt * 1e-3, 1e9)] * 2) for rtt in (5, 20)]
    records = []
    for n, condition in enumerate(conditions):
        figures: dict[str, Any] = {
            "online.seconds": spread(0.006 + 0.1 * n), "offline.seconds": spread(0.013 + 0.2 * n),
            "predicted.online_seconds": 0.1 * n, "predicted.offline_seconds": 0.2 * n,
            "check.servers.round_trip_ms": 40.12, "check.servers.mbit": 97.0,
            "check.client.round_trip_ms": 40.34, "check.client.mbit": 96.5,
        }  # fmt: skip
        case = {**network_case(), **condition.case()}
        records.append(record("network", case, figures, congestion_control="cubic"))
    return records


def growth() -> list[Record]:
    records = []
    for batch, side in ((1, 28), (64, 28), (1024, 28), (1, 64), (1, 224)):
        figures: dict[str, Any] = {
            "seconds": spread(0.02 * batch), "online.seconds": spread(0.006 * batch),
            "offline.seconds": spread(0.013 * batch), "online.bytes_per_party": 189_240 * batch,
            "offline.bytes": 2_870_000 * batch, "images_per_second": 61.0,
            **{f"peak_bytes.{name}": spread(2e8) for name in ("dealer", "party", "client")},
        }  # fmt: skip
        records.append(record("scale", {**network_case(batch, side), "chunk": min(batch, 64)}, figures))
    case = {
        "model": "derm", "parties": 2, "security": "semi-honest", "fit": "side", "figure": "online.bytes_per_party",
        "range": [28, 224],
    }  # fmt: skip
    return [*records, record("scale", case, {"exponent": 2.004, "deviation": 1.003})]


def modes() -> list[Record]:
    figures: dict[str, Any] = {"ratio.online_seconds": 1.57, "ratio.more_rounds": 3, "ratio.online_bytes": 1.002}
    for n, security in enumerate(Security):
        figures |= {
            f"{security}.online.rounds": 7 + 3 * n, f"{security}.online.bytes_per_party": 189_240,
            f"{security}.online.seconds": spread(0.006 * (1 + n)), f"{security}.offline.bytes": 2_870_000,
            f"{security}.offline.seconds": spread(0.013 * (1 + n)),
        }  # fmt: skip
    return [record("security", {**network_case(), "data": "shipped"}, figures)]


def peers() -> list[Record]:
    rows = [
        ("tessera", {"online.seconds": spread(0.6), "online.bytes_per_party": 189_240, "online.rounds": 7,
                     "offline.seconds": spread(0.013), "max_abs_error": 1e-4}, {}),
        ("crypten", {"online.seconds": spread(0.3), "online.bytes_per_party": 8_000_000, "online.rounds": 74,
                     "offline.seconds": spread(0.03), "max_abs_error": 1e-3}, {"protects": "semi-honest"}),
        ("mpyc", {}, {"status": "lacks", "reason": "it has no sigmoid"}),
    ]  # fmt: skip
    return [
        record("peers", {"case": "cnn-28", "system": system, "parties": 2}, figures, **about)
        for system, figures, about in rows
    ]


def accuracy() -> list[Record]:
    records = [
        record(
            "accuracy",
            {"part": "model", "model": "derm", "weights": "shipped", "fraction_bits": bits, "data": "shipped",
             "images": 72},
            {"agree": 70 + bits // 16, "images": 72, "accuracy": 0.65, "difference": 2.0**-bits,
             "rms_difference": 2.0 ** -(bits + 2), "exact.agree": 70, "exact.difference": 0.0075,
             "online.bytes_per_party": 189_240, "offline.bytes": 2_870_000},
        )
        for bits in (8, 12, 16)
    ]  # fmt: skip
    case = {"part": "approximation", "function": "sigmoid", "method": "fourier", "low": -8.0, "high": 8.0}
    figures = {"fit_error": 3.8e-5, "max_error": 6.4e-5, "rms_error": 2.8e-5, "rounds": 1, "opened": 1, "dealt": 18}
    return [*records, record("accuracy", {**case, "fraction_bits": 16, "terms": 9}, figures)]


def operations() -> list[Record]:
    case = {"operation": "multiply", "shapes": [[100, 100]] * 2, "parties": 2, "security": "semi-honest"}
    figures = {
        "online.rounds": 1, "online.bytes_per_party": 80_000, "online.seconds": spread(0.002), "offline.bytes": 240_000,
        "offline.seconds": spread(0.004), "max_abs_error": 0.0,
    }  # fmt: skip
    return [record("ops", case, figures)]


def workers() -> list[Record]:
    servers = ("dealer", "party0", "party1")
    whole = {f"{what}.{name}": 0.5 for name in servers for what in ("computing", "limit")} | {"stretch": 66.0}
    of_each = {"efficiency": 0.97, "busy": 0.25, **{f"cpu_seconds.{name}": 0.0172 for name in servers}}
    case = {**network_case(), "objective": "latency"}
    return [record("workers", case, whole), *(record("workers", {**case, "workers": n}, of_each) for n in (1, 4))]


def everything() -> list[Record]:
    return [*inference(), *networks(), *growth(), *workers(), *modes(), *peers(), *accuracy(), *operations()]


def page(folder: Path, records: list[Record], *arguments: str) -> str:
    """What the command makes of them."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "records.jsonl", records)
    assert main(["bench", "page", str(folder / "records.jsonl"), "--page", str(folder / "page.md"), *arguments]) == 0
    return (folder / "page.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("page")
    return folder, page(folder, everything())


def test_every_section_is_there_with_its_figures(whole: tuple[Path, str]) -> None:
    _, text = whole
    assert "Not measured" not in text
    for figure in (
        "6.10 ms (5.49–7.32; 10)",  # inference, with its spread
        "| party0 to party1 | online | 6 | 189,184 | 190,354 | 17 |",
        "40.12 ms, 97 Mbit/s", "40.34 ms, 96 Mbit/s",  # what the emulation did
        "| WAN | 106 ms (95.4–127; 10) | 100 ms | 106 ms | 100% |",
        "| derm, batch 1, 2 parties | 4 | 97% | 17.2 ms | 17.2 ms | 17.2 ms | 25% |", "0.5 workers of each",
        "side^2.00", "| 1,024 | 64 | 61.0 |",
        "| batch 1, 2 parties, malicious to semi-honest | +3 | 1.00x | 1.57x |",
        "**Ahead of Tessera** in online time: crypten (2.00x less); in online and offline time together:",
        "mpyc: it has no sigmoid",
        "| 72, 12 | 70 of 72 | 2.4e-04 | 6.1e-05 | 70 | 7.5e-03 | 65.00% | 189 kB |",
        "| sigmoid | fourier | [-8, 8] | 3.8e-05 | 6.4e-05 | 2.8e-05 | 1 | 1 | 18 |",
        "| multiply | 100x100 100x100 | 2, semi-honest | 1 | 80.0 kB |",
        "on a test's (2 cores)",
    ):  # fmt: skip
        assert figure in text, figure


def test_each_section_says_how_it_is_measured_again(whole: tuple[Path, str]) -> None:
    commands = re.findall(r"^(?:tessera .*)$", whole[1], re.MULTILINE)
    assert "tessera bench network WAN --out records.jsonl" in commands
    assert "tessera bench network --rtt 5 20 --bandwidth 1000 --out records.jsonl" in commands
    assert "tessera bench workers --workers 1 4 --out records.jsonl" in commands
    assert "tessera bench accuracy --bits 8 12 16 --out records.jsonl" in commands
    for command in commands:
        with pytest.raises(SystemExit) as end:
            main([*command.split()[1:], "--help"])
        assert end.value.code == 0, command


def test_contents_lead_to_the_sections(whole: tuple[Path, str]) -> None:
    _, text = whole
    anchors = re.findall(r"^- \[.*\]\(#(.*)\)$", text, re.MULTILINE)
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert len(anchors) == len(SECTIONS)
    assert anchors == [re.sub(r"[^a-z0-9-]", "", title.lower().replace(" ", "-")) for title in titles]


def test_pictures_are_there_and_are_pictures(whole: tuple[Path, str]) -> None:
    folder, text = whole
    for name in PICTURES:
        assert f"](benchmarks/{name}.svg)" in text
        png = (folder / "benchmarks" / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", png[16:24])
        assert width > 1000
        assert height > 200
        root = ElementTree.parse(folder / "benchmarks" / f"{name}.svg").getroot()
        assert root.tag.endswith("svg")
    linked = set(re.findall(r"\((benchmarks/[^)]*)\)", text))
    assert {f"benchmarks/{path.name}" for path in (folder / "benchmarks").iterdir()} == linked


@pytest.mark.slow
def test_the_same_records_make_the_same_files(whole: tuple[Path, str], tmp_path: Path) -> None:
    folder, text = whole
    assert page(tmp_path, everything()) == text
    for path in (folder / "benchmarks").iterdir():
        assert path.read_bytes() == (tmp_path / "benchmarks" / path.name).read_bytes(), path.name


def test_of_several_measurements_of_one_thing_the_last_counts() -> None:
    first, last = (record("ops", {"operation": "x"}, {"online.rounds": n}) for n in (1, 2))
    assert [r.figures["online.rounds"] for r in Measurements([first, last]).of("ops")] == [2]


def test_what_was_not_measured_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = page(tmp_path, operations(), "--json", "--pictures", str(tmp_path / "elsewhere"))
    summary = json.loads(capsys.readouterr().out)
    assert summary["records"] == 1
    assert summary["sections"]["Single operations"] == 1
    assert text.count("**Not measured:**") == len(SECTIONS) - 1
    # Predictions need no measurements.
    assert [Path(path).name for path in summary["pictures"]] == ["round-trip-time.svg", "round-trip-time.png"]
    assert "](elsewhere/round-trip-time.svg)" in text


def test_a_run_that_was_not_as_predicted_is_not_hidden(tmp_path: Path) -> None:
    (good,) = inference()
    wrong = record("inference", dict(good.case), {**good.figures, "online.rounds": 9})
    assert "**Not as predicted: derm 3x28x28, batch of 1" in page(tmp_path, [wrong])


@pytest.mark.parametrize(
    ("ours", "sentence"),
    [
        ([], "has no figure, and cannot be ahead: was not measured here."),
        (["it has no argmax"], "has no figure, and cannot be ahead: it has no argmax."),
    ],
)
def test_what_tessera_lacks_is_not_hidden(ours: list[str], sentence: str) -> None:
    case = {"case": "argmax", "parties": 2}
    lacking = [record("peers", {**case, "system": "tessera"}, {}, status="lacks", reason=reason) for reason in ours]
    theirs = record("peers", {**case, "system": "crypten"}, {"online.seconds": spread(0.3)})
    assert _ahead([*lacking, theirs]).endswith(sentence)


def test_files_without_measurements_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none.jsonl").touch()
    assert main(["bench", "page", str(tmp_path / "none.jsonl")]) == 2
    assert "no measurements" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("figure", "text"), [(spread(0.0061), "6.10 ms (5.49–7.32; 10)"), (2.5, "2.50 s"), (None, "–"), (0.5, "500 ms")]
)
def test_times(figure: Any, text: str) -> None:
    assert seconds(figure) == text


@pytest.mark.parametrize(("figure", "text"), [(999, "999 B"), (1500, "1.50 kB"), (2.5e6, "2.50 MB"), (None, "–")])
def test_sizes(figure: Any, text: str) -> None:
    assert size(figure) == text
