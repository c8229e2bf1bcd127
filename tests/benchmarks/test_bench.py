"""``tessera bench``: its JSON, its figures beside the cost reading, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import devices, field_kernels, links, operations, relu_kernels
from benchmarks.records import read, write
from mpc.errors import NotAsPromised, TooLarge
from mpc.rings.on_torch import words
from mpc.security import Security
from nn.derm import samples
from nn.derm.dataset import load_split
from nn.derm.model import derm_model
from nn.derm.preprocess import load_image, load_pixels
from parties.commands.command_line import main

SPREAD = ["median", "min", "max", "count"]


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["bench", *arguments, "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    summary: dict[str, Any] = json.loads(printed)
    return summary


@pytest.mark.usefixtures("shared_cluster")
def test_inference(capsys: pytest.CaptureFixture[str]) -> None:
    summary = bench(capsys, "inference", "--batch", "2", "--repeat", "2")
    assert {
        "images", "agree", "max_abs_difference", "parties", "security", "online", "offline", "layers", "machine",
    } <= summary.keys()  # fmt: skip
    assert (summary["images"], summary["agree"], summary["batch"], summary["repeat"]) == (2, 2, 2, 2)
    assert summary["max_abs_difference"] < 0.01
    predicted = derm_model().cost((2, 3, 28, 28), 2)
    online, offline = summary["online"], summary["offline"]
    assert (online["rounds"], online["bytes_per_party"]) == (predicted.online_rounds, predicted.online_bytes_per_party)
    assert offline["bytes"] == predicted.offline_bytes
    assert summary["as_predicted"]
    assert summary["per_image"]["offline_bytes"] == predicted.offline_bytes / 2
    assert summary["predicted"]["online"] == {name: online[name] for name in summary["predicted"]["online"]}
    assert summary["predicted"]["offline"] == {"bytes": offline["bytes"]}
    assert online["messages_per_party"] == predicted.online_messages_per_party == 8
    assert online["client_bytes"] == predicted.online_client_bytes
    per_layer = [layer["seconds"] for layer in summary["layers"].values()]
    for seconds in (online["seconds"], offline["seconds"], *summary["breakdown"].values(), *per_layer):
        assert list(seconds) == SPREAD
        assert 0 <= seconds["min"] <= seconds["median"] <= seconds["max"] < 10
    assert {"conv1", "act1", "conv2", "act2", "fc1", "act3", "fc2"} <= summary["layers"].keys()
    for name, layer in summary["layers"].items():
        cost = predicted.layers[name]
        assert (layer["rounds"], layer["opened"], layer["dealt"]) == (cost.rounds, cost.opened, cost.dealt)
        assert layer["bytes_per_party"] == cost.opened_bytes
    for phase in ("online", "offline"):
        used = summary["resources"][phase]
        assert used.keys() == {"dealer", "party0", "party1", "client"}
        for process in used.values():
            assert list(process["cpu_seconds"]) == list(process["peak_bytes"]) == SPREAD
            assert 0 <= process["cpu_seconds"]["min"] < 10
            assert 10e6 < process["peak_bytes"]["min"] < 10e9
    # The dealer's part is the offline phase, and the parties' the online phase.
    assert summary["resources"]["offline"]["dealer"]["cpu_seconds"]["median"] > 1e-4
    assert summary["resources"]["online"]["party0"]["cpu_seconds"]["median"] > 1e-4


@pytest.mark.slow
@pytest.mark.usefixtures("shared_cluster")
def test_measurements_are_kept_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.jsonl"
    bench(capsys, "inference", "--repeat", "1", "--out", str(path))
    bench(capsys, "ops", "multiply", "sigmoid", "--size", "10", "--repeat", "1", "--out", str(path))
    inference, multiply, sigmoid = read(path)
    assert (inference.bench, multiply.bench, sigmoid.bench) == ("inference", "ops", "ops")
    assert inference.case == {
        "model": "derm", "weights": "shipped", "shape": [3, 28, 28], "batch": 1, "parties": 2,
        "security": "semi-honest", "objective": "latency",
    }  # fmt: skip
    assert multiply.case == {
        "operation": "multiply", "shapes": [[10], [10]], "parties": 2, "security": "semi-honest"
    }  # fmt: skip
    assert inference.figures["online.rounds"] == 8
    assert list(inference.figures["layers.conv1.seconds"]) == SPREAD
    assert list(multiply.figures["resources.online.party0.cpu_seconds"]) == SPREAD
    # A cost that was lower once is worse now, whatever the times do.
    write(path, [replace(inference, figures={"online.rounds": 5})])
    arguments = ["bench", "inference", "--repeat", "1", "--against", str(path)]
    assert main(arguments) == 0
    assert "online.rounds 5 -> 8 (+60.0%)" in capsys.readouterr().err
    assert main([*arguments, "--strict"]) == 1


TORCH = """
from torch import manual_seed, nn
manual_seed(0)  # how far weights go decides how many bits are compared
net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Sigmoid(), nn.Linear(3, 2))
def make():
    return net
"""


@pytest.mark.usefixtures("shared_cluster")
@pytest.mark.parametrize("name", ["net", "make"])
def test_a_network_of_the_users(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "my_net.py"
    path.write_text(TORCH)
    arguments = ["--torch", f"{path}:{name}", "--shape", "3,2,2", "--range", "-2", "2", "--batch", "2"]
    summary = bench(capsys, "inference", *arguments, "--repeat", "1")
    assert summary["as_predicted"]
    assert (summary["batch"], summary["shape"], summary["weights"]) == (2, [3, 2, 2], "of the file")
    assert summary["difference"]["max"] < 1e-3
    assert main(["cost", *arguments, "--json"]) == 0
    predicted = json.loads(capsys.readouterr().out)
    for phase in ("online", "offline"):
        assert predicted[phase] == {figure: summary[phase][figure] for figure in predicted[phase]}
    for layer, figures in predicted["layers"].items():
        assert figures == {figure: summary["layers"][layer][figure] for figure in figures}


def test_both_forms_of_the_shipped_network_are_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = []
    for model in ("derm", "derm-tails"):
        assert main(["cost", "--model", model, "--json"]) == 0
        rounds.append(json.loads(capsys.readouterr().out)["online"]["rounds"])
    assert rounds == [8, 9]  # the former's with the bit that says whether an input left an interval


@pytest.mark.usefixtures("shared_cluster")
def test_a_network_with_tails_costs_what_was_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    summary = bench(capsys, "inference", "--model", "derm-tails", "--repeat", "1")
    assert summary["as_predicted"]
    assert summary["difference"]["max"] < 1e-2


@pytest.mark.usefixtures("shared_cluster")
def test_larger_images(capsys: pytest.CaptureFixture[str]) -> None:
    summary = bench(capsys, "inference", "--side", "30", "--repeat", "1")
    assert summary["as_predicted"]
    assert summary["shape"] == [3, 30, 30]
    assert summary["weights"] == "shipped, enlarged"
    assert summary["difference"]["max"] < 1e-2


@pytest.mark.usefixtures("shared_cluster")
def test_inference_on_a_test_split_beside_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    shipped = samples()[:5]
    path = tmp_path / "few.npz"
    np.savez(
        path,
        test_images=np.stack([load_pixels(sample.path) for sample in shipped]),
        test_labels=np.array([[sample.label] for sample in shipped], dtype=np.uint8),
        test_ids=np.array([sample.id for sample in shipped]),
    )
    assert len(load_split(path, "test").images) == 5
    summary = bench(capsys, "inference", "--data", str(path), "--batch", "4")
    assert (summary["images"], summary["batch"], summary["repeat"]) == (5, 4, 1)
    for name in ("approximation", "exact_sigmoid"):
        assert summary["torch"][name]["images"] == 5
        assert summary["torch"][name]["max_abs_difference"] < 0.01
    assert summary["torch"]["approximation"]["agree"] == 5
    assert 0 <= summary["accuracy"] <= 1
    records = tmp_path / "records.jsonl"
    some = bench(
        capsys, "inference", "--data", str(path), "--images", "0:2", "--closest", "--memory", "--out", str(records)
    )
    assert (some["images"], some["agree"], some["lead"]) == (2, 2, 0.0)
    plain = derm_model().plain(np.stack([load_image(sample.path) for sample in shipped]))
    nearest = np.diff(np.sort(plain, axis=1)[:, -2:])[:, 0].argsort()[:2]
    assert some["accuracy"] == np.mean([plain[i].argmax() == shipped[i].label for i in nearest])
    (written,) = read(records)
    assert written.case["images"] == "0:2"
    # What the lesion network's card is made of.
    figures = [written.figures[name] for name in ("images", "agree", "lead")]
    assert (figures, written.figures["difference"]["max"]) == ([2, 2, 0.0], some["max_abs_difference"])
    assert main(["bench", "inference", "--data", str(path), "--images", "5:9"]) == 2
    assert "it has no such" in capsys.readouterr().err


@pytest.mark.slow
def test_both_kinds_of_security(capsys: pytest.CaptureFixture[str]) -> None:
    summary = bench(capsys, "security", "--images", "5", "--batch", "2")
    assert summary["malicious_beside_semi_honest"]["images"] == summary["malicious_beside_plain"]["images"] == 5
    assert summary["malicious_beside_semi_honest"]["agree"] == summary["malicious_beside_plain"]["agree"] == 5
    assert summary["malicious_beside_semi_honest"]["max_abs_difference"] < 1e-3
    assert summary["as_predicted"]
    for security in Security:
        predicted = derm_model().cost((2, 3, 28, 28), 2, security)
        online, offline = summary[security]["online"], summary[security]["offline"]
        assert (online["rounds"], online["bytes_per_party"]) == (
            predicted.online_rounds,
            predicted.online_bytes_per_party,
        )
        assert offline["bytes"] == predicted.offline_bytes
    assert summary["ratio"]["more_rounds"] == 2
    # The checks of ranges and of intervals open no bits; all else is the same, and the MAC check.
    strict, loose = (derm_model().cost((2, 3, 28, 28), 2, kind) for kind in (Security.MALICIOUS, Security.SEMI_HONEST))
    checks = ("range check", "interval check")
    rest = [
        c.online_bytes_per_party - sum(c.layers[name].opened_bytes for name in checks if name in c.layers)
        for c in (strict, loose)
    ]
    assert 1 < rest[0] / rest[1] < 1.2
    assert summary["ratio"]["online_bytes"] == strict.online_bytes_per_party / loose.online_bytes_per_party < 1.2
    assert 0 < summary["ratio"]["online_seconds"] < 100


@pytest.mark.slow
def test_operations_cost_what_was_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    summary = bench(capsys, "ops", "--size", "40", "--repeat", "1", "--parties", "3")
    rows = {row["operation"]: row for row in summary["operations"]}
    assert list(rows) == list(operations.OPERATIONS)
    for row in rows.values():
        assert row["as_predicted"], row["operation"]
        assert list(row["online"]["seconds"]) == SPREAD
        assert row["max_abs_error"] < (0.01 if row["operation"] != "polynomial" else 0.05), row
    # Inputs arrive masked: whatever needs one opening finds it made, and only the reveal is left.
    assert {row["online"]["rounds"] for row in rows.values()} == {1}


SMALL_GPU = ("gpu", "--device", "cpu", "--part", "100000", "--batches", "1", "--repeat", "1", "--model", "derm")


def test_what_a_device_computes_is_compared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: devices.SELECTIONS[name] for name in ("relu", "argmax")}
    monkeypatch.setattr(devices, "SELECTIONS", few)
    monkeypatch.setattr(devices, "OPERATIONS", {"multiply": operations.OPERATIONS["multiply"]})
    summary = bench(capsys, *SMALL_GPU)
    assert (summary["device"], summary["card"], summary["not_wiped_bytes"]) == ("cpu", False, 0)
    assert summary["compared"] >= 6
    assert summary["network"]["1"]["online"] > 0
    product = words.product
    monkeypatch.setattr(words, "product", lambda x, y: words.add(product(x, y), product(x, y)))
    assert main(["bench", *SMALL_GPU, "--json"]) == NotAsPromised.exit_code
    failed = json.loads(capsys.readouterr().out)
    assert (failed["error"], "multiply" in failed["message"]) == ("NotAsPromised", True)

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(devices, "_arithmetic", full)
    monkeypatch.setattr(words, "product", product)
    assert main(["bench", *SMALL_GPU, "--json"]) == TooLarge.exit_code
    assert json.loads(capsys.readouterr().out)["error"] == "TooLarge"


def test_kernels(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field_kernels, "PAIRS", 1000)
    monkeypatch.setattr(field_kernels, "SIDE", 64)
    monkeypatch.setattr(relu_kernels, "VALUES", 1000)
    summary = bench(capsys, "kernels", "--repeat", "2")
    for part, other in (("multiply", "copy_seconds"), ("matmul", "float64_seconds")):
        for key in ("seconds", other, "ratio"):
            assert list(summary[part][key]) == SPREAD
            assert summary[part][key]["min"] > 0
    assert list(summary["relu_ns"]) == list(relu_kernels.OBJECTIVES)
    for parts in summary["relu_ns"].values():
        assert list(parts) == list(relu_kernels.PARTS)
        assert all(list(part) == SPREAD and part["min"] > 0 for part in parts.values())


@pytest.mark.slow
def test_links(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "LARGE", 1 << 20)
    summary = bench(capsys, "links", "--repeat", "1")
    for way in links.WAYS:
        assert list(summary["gigabytes_a_second"][way]) == SPREAD
        assert summary["gigabytes_a_second"][way]["min"] > 0
        assert all(used["min"] >= 0 for used in summary["processor_seconds_a_gigabyte"][way].values())
        assert list(summary["round_trip_seconds"][way]) == [str(size) for size in links.SIZES]


@pytest.mark.usefixtures("shared_cluster")
def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "ops", "multiply", "--size", "10", "--repeat", "1"]) == 0
    assert "multiply" in capsys.readouterr().out
    assert main(["bench", "inference", "--repeat", "1"]) == 0
    printed = capsys.readouterr().out
    assert "waiting for openings" in printed
    assert "Rounds, messages and bytes are as predicted." in printed
    assert "Not for diagnosis." in printed


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["inference", "--model", "resnet"], 2, "the known ones are derm"),
        (["inference", "--parties", "1"], 2, "at least 2"),
        (["inference", "--security", "perfect"], 2, "perfect"),
        (["inference", "--data", "nowhere.npz"], 3, "nowhere.npz"),
        (["inference", "--data", "nowhere.npz", "--repeat", "2"], 2, "exclude each other"),
        (["inference", "--images", "0:2"], 2, "--images and --closest are of --data"),
        (["inference", "--data", "nowhere.npz", "--side", "64"], 2, "leave out --torch and --side"),
        (["inference", "--side", "3"], 2, "the least side is 4"),
        (["inference", "--shape", "3,28,28"], 2, "go with --torch"),
        (["inference", "--torch", "net.py:net"], 2, "needs --shape"),
        (["inference", "--torch", "net.py:net", "--shape", "3", "--side", "64"], 2, "--side is for"),
        (["inference", "--torch", "net.py", "--shape", "3"], 2, "as in net.py:net"),
        (["inference", "--torch", "nowhere.py:net", "--shape", "3"], 2, "there is no file nowhere.py"),
        (["inference", "--against", "nowhere.jsonl"], 3, "nowhere.jsonl"),
        (["inference", "--out", "nowhere/out.jsonl"], 3, "nowhere"),
        (["scale", "--batches", "4", "1"], 2, "must grow"),
        (["ops", "divide"], 2, "the known ones are multiply"),
        (["ops", "--parties", "0"], 2, "at least 2"),
    ],
)
def test_refusals_are_one_sentence(
    arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("tessera: ")
    assert printed.err.count("\n") == 1
    assert sentence in printed.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["inference", "--batch", "0"],
        ["inference", "--images", "2:2"],
        ["inference", "--images", "2"],
        ["inference", "--shape", "3,x"],
        ["ops", "--size", "many"],
        [],
    ],
)
def test_malformed_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert capsys.readouterr().err
