"""``tessera bench accuracy``: its figures against the fits' own errors, the model's float64 values, and the costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import MANY, approximations
from benchmarks.models import derm
from benchmarks.records import read
from mpc.cost import cost
from nn.derm import samples
from parties.commands.command_line import main
from protocols.approximation import FUNCTIONS, METHODS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A run over a few images, with numbers of bits that do and do not fit."""
    folder = tmp_path_factory.mktemp("accuracy")
    path, printed = folder / "out.jsonl", folder / "printed.json"
    with pytest.MonkeyPatch.context() as patch, printed.open("w") as file:
        patch.setattr("sys.stdout", file)
        arguments = ["bench", "accuracy", "--bits", "8", "16", "30", "--images", "5", "--json", "--out", str(path)]
        assert main(arguments) == 0
    return json.loads(printed.read_text()), path


def test_every_function_and_method_that_there_is() -> None:
    found = {(a.function.name, a.method) for a in approximations()}
    assert {name for name, _ in found} == set(FUNCTIONS)
    assert {method for _, method in found} == {*METHODS, "tails"}
    assert {(name, method) for name in FUNCTIONS for method in ("fourier", "minimax")} <= found
    assert ("gelu", "taylor") not in found


def test_errors_of_functions(measured: tuple[dict[str, Any], Path]) -> None:
    summary, _ = measured
    rows = {(row["function"], row["method"]): row for row in summary["functions"]}
    fits = {(a.function.name, a.method): a.fit for a in approximations()}
    assert rows.keys() == fits.keys()
    for key, row in rows.items():
        if key[1] == "tails":
            assert row["fit_error"] <= fits[key].error, key
            assert row["max_error"] <= 2 * FUNCTIONS[key[0]].target + 2.0**-14, key
            assert (row["low"], row["rounds"]) == (-(2.0**20), 2 + (row["opened_bytes"] > 18)), key
        else:
            assert row["fit_error"] == pytest.approx(fits[key].error, rel=1e-6, abs=1e-12), key
        assert 0 < row["rms_error"] < row["max_error"], key
    for name, function in FUNCTIONS.items():
        row = rows[name, "fourier"]
        # Rounding adds no more than the fit's own error, or the target, whichever is larger; the input's adds some.
        assert row["max_error"] <= row["fit_error"] + max(row["fit_error"], function.target) + 2.0**-14 * 50
        assert (row["rounds"], row["opened"], row["dealt"]) == (1, 1, 2 * row["terms"])
    assert rows["sigmoid", "composite"]["rounds"] == 3


def test_the_page_says_what_tails_cost() -> None:
    """docs/models.md: bytes dealt for a value, by one fit on its interval, and with tails on both ranges."""
    page = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    dealt: dict[str, list[int]] = {}
    for each in approximations():
        if each.function.tails is not None and each.method in ("fourier", "tails"):
            spent = cost(each.inner_program(), 2).layers[each.function.name]
            dealt.setdefault(each.function.name, []).append(round(spent.dealt_bytes / MANY))
            assert spent.rounds == (1 if each.method == "fourier" else 2)
    for name, figures in dealt.items():
        low, high = FUNCTIONS[name].low, FUNCTIONS[name].high
        assert f"| {name} | [{low:g}, {high:g}], " + " | ".join(map(str, figures)) + " |" in page, (name, figures)


def test_figures_of_the_network(measured: tuple[dict[str, Any], Path]) -> None:
    summary, _ = measured
    coarse, usual, too_many = summary["fraction_bits"]
    assert summary["images"] == usual["images"] == 5
    assert usual["agree"] == 5
    assert usual["rms_difference"] < usual["difference"] < 2e-3
    assert coarse["difference"] > 10 * usual["difference"]
    expected = cost(derm().model.description.program((1, 3, 28, 28)), 2)
    assert usual["online"] == {"rounds": expected.online_rounds, "bytes_per_party": expected.online_bytes_per_party}
    assert usual["offline"]["bytes"] == expected.offline_bytes
    labels = [sample.label for sample in samples()[:5]]
    plain = derm().model.plain(derm().inputs(5)).argmax(axis=1)
    assert summary["plain_accuracy"] == pytest.approx(np.mean(plain == labels))
    assert too_many.keys() == {"fraction_bits", "does_not_fit"}
    assert "30" in too_many["does_not_fit"]
    assert "do not fit the field" in too_many["does_not_fit"]


def test_records(measured: tuple[dict[str, Any], Path]) -> None:
    summary, path = measured
    records = read(path)
    assert {record.bench for record in records} == {"accuracy"}
    functions = [r for r in records if r.case["part"] == "approximation"]
    models = [r for r in records if r.case["part"] == "model"]
    assert len(functions) == len(summary["functions"])
    first = functions[0]
    assert {name: first.case[name] for name in ("function", "method", "low", "high", "fraction_bits")} == {
        "function": "sigmoid", "method": "fourier", "low": -8.0, "high": 8.0, "fraction_bits": 16,
    }  # fmt: skip
    assert first.figures.keys() == {
        "max_error", "rms_error", "fit_error", "rounds", "opened", "dealt", "opened_bytes", "dealt_bytes"
    }  # fmt: skip
    assert [r.case["fraction_bits"] for r in models] == [8, 16]
    assert models[1].case == {
        "part": "model", "model": "derm", "weights": "shipped", "fraction_bits": 16, "data": "shipped", "images": 5,
    }  # fmt: skip
    assert models[1].figures["agree"] == 5
    assert {"difference", "rms_difference", "accuracy", "exact.agree", "exact.difference"} <= models[1].figures.keys()
    assert {"online.bytes_per_party", "offline.bytes"} <= models[1].figures.keys()
    assert len({record.key for record in records}) == len(records)


def test_table_and_the_same_figures_again(
    measured: tuple[dict[str, Any], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, path = measured
    arguments = ["bench", "accuracy", "--bits", "16", "40", "--images", "5", "--against", str(path), "--strict"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "0 figures got worse, 0 better" in printed.err
    assert "does not fit" in printed.out
    assert "40 bits: a computation takes 6 to 29 fraction bits" in printed.out
    assert "composite" in printed.out


def test_bits_are_given_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "accuracy", "--bits", "8", "8"]) == 2
    assert "--bits" in capsys.readouterr().err
