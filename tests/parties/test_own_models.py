"""Networks of one's own, from the command line: uploaded, dealt for, and asked, by rows, tables and pictures."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mpc.errors import ConfigurationError, EncodingError, NoSuchName, ShapeError, TesseraError, UsageError
from nn import Classes, Column, ImageInput, Interface, Label, Linear, Model, Sequential, TableInput
from parties.commands import deal, own, predict, upload
from parties.commands.command_line import parser_for

COMMANDS: dict[str, Callable[..., Awaitable[int]]] = {
    "deal": deal.deal,
    "predict": predict.predict,
    "upload": upload.upload,
}

PEOPLE = [("age", 0, 120), ("bmi", 10, 60), ("pressure", 60, 220), ("children", 0, 12), ("smokes", 0, 1)]
TABLE = json.dumps({"kind": "table", "columns": [{"name": n, "low": a, "high": b} for n, a, b in PEOPLE]})
GREY = '{"kind": "image", "height": 16, "width": 16, "channels": "L"}'
NET = """
    import torch
    from torch import nn

    from beside import WIDTH

    class Risk(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.hidden, self.out = nn.BatchNorm1d(5), nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
            self.norm.running_mean.copy_(torch.tensor([50.0, 25.0, 120.0, 1.0, 0.5]))
            self.norm.running_var.copy_(torch.tensor([400.0, 25.0, 400.0, 1.0, 0.25]))

        def forward(self, x):
            return self.out(torch.tanh(self.hidden(self.norm(x))))

    torch.manual_seed(0)
    risk = Risk()

    def grey():
        layers = nn.Conv2d(1, 2, 3), nn.Sigmoid(), nn.AvgPool2d(7), nn.Flatten(), nn.Linear(8, 2)
        return nn.Sequential(*layers)

    class Waves(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(3, 2)

        def forward(self, x):
            return self.out(torch.sin(x))

    class nets:
        small = nn.Linear(5, 3)

    number = 7

    def failing():
        raise RuntimeError("no \\x1b[2J luck")

    def wanting(size):
        return size
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a Python file, as a user has it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    Path("beside.py").write_text("WIDTH = 8\n")
    Path("net.py").write_text(textwrap.dedent(NET))
    rng = np.random.default_rng(0)
    rows = np.stack([rng.uniform(0.7 * a + 0.3 * b, 0.3 * a + 0.7 * b, 40) for _, a, b in PEOPLE], axis=1)
    np.save("rows.npy", rows)
    np.save("images.npy", rng.uniform(-1, 1, (8, 1, 16, 16)))
    return tmp_path


def given(*words: str) -> own.Given:
    """What `tessera upload` would store."""
    return own.given(parser_for(["upload", *words]).parse_args(["upload", *words]))


def module(name: str) -> Any:
    space: dict[str, Any] = {"WIDTH": 8}
    exec(textwrap.dedent(NET).replace("from beside import WIDTH", ""), space)
    return space[name]


# -- what is uploaded ----------------------------------------------------------------------------------------------


def test_a_network_of_a_python_file(folder: Path) -> None:
    words = ("--samples", "rows.npy", "--input", TABLE, "--classes", "low, middle,high", "--notice", "A toy.")
    name, model = given("net.py:risk", *words)
    assert name == "risk"
    assert isinstance(model, Model)
    said = model.interface
    assert said.input == TableInput(tuple(Column(*column) for column in PEOPLE))
    assert said.output == Classes((Label("low"), Label("middle"), Label("high")))
    assert said.notice == "A toy."
    rows = np.load("rows.npy")
    with torch.no_grad():
        wanted = module("risk").eval()(torch.tensor(rows, dtype=torch.float32)).numpy()
    assert np.abs(model.plain(rows) - wanted).max() < 0.01
    # And as JSON in files; a table of samples.
    Path("in.json").write_text(TABLE)
    Path("out.json").write_text('{"labels": [{"name": "low", "code": "l"}, {"name": "m"}, {"name": "h"}]}')
    Path("rows.csv").write_text("\n".join([",".join(n for n, *_ in PEOPLE), *(",".join(map(str, r)) for r in rows)]))
    again = given("net.py:risk", "--samples", "rows.csv", "--input", "in.json", "--classes", "out.json").secret
    assert isinstance(again, Model)
    np.testing.assert_array_equal(again.plain(rows), model.plain(rows))
    assert again.interface.output == Classes((Label("low", "l"), Label("m"), Label("h")))


def test_what_makes_a_network_when_it_is_called(folder: Path) -> None:
    for words in (("--samples", "images.npy"), ()):
        name, model = given("net.py:grey", "--input", GREY, "--classes", '["cat", "dog"]', *words)
        assert isinstance(model, Model)
        assert (name, model.architecture.input_shape) == ("grey", (1, 16, 16))
        assert model.interface.input == ImageInput(16, 16, channels="L")
    assert given("net.py:Risk", "--samples", "rows.npy", "--range", "0", "220").name == "Risk"
    dotted = given("net.py:nets.small", "--samples", "rows.npy", "--range", "0", "220")
    assert isinstance(dotted.secret, Model)
    assert (dotted.name, dotted.secret.interface.bounds()) == ("small", (0, 220))


def test_a_network_that_ends_with_probabilities_gives_no_others(folder: Path) -> None:
    Path("sure.py").write_text("from torch import nn\nnet = nn.Sequential(nn.Linear(5, 3), nn.Softmax(1))\n")
    for classes in ("a,b,c", '["a", "b", "c"]'):
        model = given("sure.py:net", "--samples", "rows.npy", "--range", "0", "220", "--classes", classes).secret
        assert isinstance(model, Model)
        assert model.interface.output == Classes((Label("a"), Label("b"), Label("c")), "none")


def test_what_was_saved(folder: Path) -> None:
    net = Sequential({"out": Linear(2, 2)}).architecture((2,))
    said = Interface(output=Classes((Label("a"), Label("b"))), notice="Saved.")
    Model(net, {"out.weight": np.eye(2), "out.bias": np.zeros(2)}, said).save("toy.safetensors")
    name, model = given("toy.safetensors", "--range", "-4", "4", "--classes", "no,yes")
    assert isinstance(model, Model)
    assert (name, model.interface.notice, model.interface.bounds()) == ("toy", "Saved.", (-4, 4))
    assert [label.name for label in model.interface.output.labels] == ["no", "yes"]  # type: ignore[union-attr]
    Path("ours.py").write_text("import nn\nsaved = nn.Model.load('toy.safetensors')\n")
    assert given("ours.py:saved").secret.describe() == given("toy.safetensors").secret.describe()


def test_a_network_in_onnx(folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weights = {"w": np.full((3, 5), 0.01, np.float32), "b": np.arange(3, dtype=np.float32)}
    takes, gives = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", n]) for name, n in (("x", 5), ("y", 3))
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gemm", ["x", "w", "b"], ["a"], transB=1), onnx.helper.make_node("Relu", ["a"], ["y"])],
        "net", [takes], [gives], [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), "net.onnx")
    name, model = given("net.onnx", "--samples", "rows.npy", "--input", TABLE, "--classes", "low,middle,high")
    assert isinstance(model, Model)
    assert (name, model.interface.output) == ("net", Classes((Label("low"), Label("middle"), Label("high"))))
    rows = np.load("rows.npy")
    np.testing.assert_allclose(model.plain(rows), np.maximum(rows @ weights["w"].T + weights["b"], 0), rtol=1e-6)
    assert given("net.onnx", "--range", "0", "220").secret.interface.bounds() == (0, 220)  # type: ignore[union-attr]


WRONG: dict[str, tuple[tuple[str, ...], type[TesseraError], str]] = {
    "no file": (("none.py:net",), ConfigurationError, "there is no file none.py"),
    "no name": (("net.py:other",), UsageError, "net.py has nothing called other"),
    "no object": (("net.py",), UsageError, r"say which network of net.py: net.py:NAME"),
    "a number": (("net.py:number",), UsageError, "net.py:number is int: name a torch.nn.Module"),
    "it fails": (("net.py:failing",), UsageError, r"line 3\d: RuntimeError: no  \[2J luck"),
    "it wants more": (("net.py:wanting",), UsageError, "cannot be called without arguments"),
    "a syntax error": (("broken.py:net",), UsageError, "broken.py cannot be run, line 2: SyntaxError"),
    "an import": (("lost.py:net",), UsageError, "line 1: ModuleNotFoundError"),
    "it exits": (("exits.py:net",), UsageError, "line 2: SystemExit"),
    "no onnx": (("net.onnx",), ConfigurationError, "there is no file net.onnx"),
    "broken onnx": (("broken.onnx",), ConfigurationError, "broken.onnx cannot be read as ONNX"),
    "weights of onnx": (("net.onnx", "--weights", "x"), UsageError, "--weights does not go with net.onnx"),
    "a pickle": (("net.pt",), UsageError, "without running it: give the Python file"),
    "no model": (("mine",), NoSuchName, "no installed package brings a model 'mine'"),
    "a missing file": (("x.safetensors",), ConfigurationError, "x.safetensors"),
    "other classes": (("net.py:grey", "--input", GREY, "--classes", "a,b,c"), ShapeError, "not 3 classes"),
    "no class": (("net.py:grey", "--input", GREY, "--classes", "a,"), UsageError, "name of 1 to"),
    "another shape": (("net.py:risk", "--samples", "images.npy", "--input", TABLE), ShapeError, r"\(5,\), or"),
    "samples out of range": (("net.py:risk", "--samples", "rows.npy"), EncodingError, r"not within \[-1, 1\].*--range"),
    "no samples": (("net.py:risk", "--range", "0", "9"), UsageError, "--range goes with --samples"),
    "both": (("net.py:risk", "--range", "0", "9", "--input", TABLE), UsageError, "give no --range"),
    "bad input": (("net.py:grey", "--input", '{"kind": "video"}'), UsageError, "--input: not a model's description"),
    "no input": (("net.py:grey", "--input", "none.json"), ConfigurationError, "--input: none.json cannot be read"),
    "bad classes": (("net.py:grey", "--input", GREY, "--classes", "[1, 2]"), UsageError, "--classes"),
    "weights": (("net.py:grey", "--weights", "x"), UsageError, "--weights does not go with a network of a Python"),
    "data": (("x.npz", "--range", "0", "1", "--classes", "a"), UsageError, "--classes does not go with a data set"),
    "data without": (("x.npz",), UsageError, "needs --range"),
    "samples of a file": (("toy.safetensors", "--samples", "rows.npy"), UsageError, "they are for networks of PyTorch"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_uploaded(folder: Path, name: str) -> None:
    Path("broken.py").write_text("x = 1\nnet = = 3\n")
    Path("lost.py").write_text("import there_is_no_such_module\n")
    Path("exits.py").write_text("import sys\nsys.exit(3)\n")
    Path("broken.onnx").write_bytes(b"no network")
    words, kind, sentence = WRONG[name]
    with pytest.raises(kind, match=sentence) as caught:
        given(*words)
    assert str(caught.value).isprintable()


# -- and asked -----------------------------------------------------------------------------------------------------


@pytest.fixture
def typed(site: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command of the client ``clinic`` prints on stdout and stderr; or the error that it ends with."""

    async def run(*words: object) -> tuple[str, str]:
        strings = [str(word) for word in words]
        assert await COMMANDS[strings[0]](site.client(), parser_for(strings).parse_args(strings)) == 0
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run


async def test_a_table_of_named_columns(folder: Path, typed: Any) -> None:
    named = ("--input", TABLE, "--classes", "low,middle,high", "--notice", "A toy.")
    await typed("upload", "net.py:risk", "--samples", "rows.npy", *named)
    rows = np.load("rows.npy")[:3]
    np.save("row.npy", rows[2])
    with torch.no_grad():
        wanted = torch.softmax(module("risk").eval()(torch.tensor(rows, dtype=torch.float32)), 1).numpy()
    best = [("low", "middle", "high")[int(i)] for i in wanted.argmax(1)]
    lines = [("who", *(name for name, *_ in PEOPLE[::-1])), *((i, *row[::-1]) for i, row in enumerate(rows))]
    np.savetxt("x.csv", np.array(lines), "%s", ",")

    out, err = await typed("predict", "x.csv")
    assert out.splitlines() == [f"x.csv[{i}]: {best[i]} ({wanted[i].max():.0%})" for i in range(3)]
    assert err.endswith("A toy.\n")
    assert (await typed("predict", "row.npy"))[0] == f"row.npy: {best[2]} ({wanted[2].max():.0%})\n"
    found = json.loads((await typed("predict", "row.npy", "x.csv", "--json"))[0])
    assert (found["model"], found["classes"], found["notice"]) == ("risk", ["low", "middle", "high"], "A toy.")
    places = [(one["input"], one["row"], one["class"], one["warnings"]) for one in found["predictions"]]
    assert places == [("row.npy", 0, best[2], []), *(("x.csv", i, best[i], []) for i in range(3))]
    for one, p in zip(found["predictions"], wanted[[2, 0, 1, 2]], strict=True):
        assert one["probabilities"] == pytest.approx(p, abs=2e-3)

    # Dealt ahead of time, and used.
    assert "2 runs dealt" in (await typed("deal", "--count", 2))[0]
    assert json.loads((await typed("predict", "row.npy", "--json"))[0])["run"]["offline"]["from_stock"]

    rows[1, 0] = 130
    np.save("old.npy", rows)
    for file, kind, sentence in (
        ("old.npy", EncodingError, "row 1 of old.npy: age is not within 0 to 120"),
        ("images.npy", ShapeError, r"inputs of shape \(5,\), or \(N, 5\)"),
        ("net.py", EncodingError, "net.py is not a JPEG or PNG"),
    ):
        with pytest.raises(kind, match=sentence):
            await typed("predict", file)


async def test_a_grey_picture(folder: Path, typed: Any) -> None:
    await typed("upload", "net.py:grey", "--samples", "images.npy", "--input", GREY, "--classes", "cat,dog")
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save("good.png")
    Image.fromarray(rng.integers(0, 256, (20, 90, 3), dtype=np.uint8)).save("wide.png")
    Image.new("RGB", (40, 40), "white").save("flat.jpg")
    Image.new("RGB", (1, 1), "white").save("one.png")
    np.save("pixels.npy", np.asarray(Image.open("good.png")))

    files = ("good.png", "wide.png", "flat.jpg", "one.png", "pixels.npy")
    predictions = json.loads((await typed("predict", *files, "--json"))[0])["predictions"]
    assert [len(one["warnings"]) for one in predictions] == [0, 1, 1, 2, 0]
    assert predictions[0]["probabilities"] == pytest.approx(predictions[4]["probabilities"], abs=1e-3)
    assert {one["class"] for one in predictions} <= {"cat", "dog"}
    out, err = await typed("predict", *files[:2])
    assert [line.partition(": ")[0] for line in out.splitlines()] == ["good.png", "wide.png"]
    assert "tessera: wide.png has 90 by 20 pixels, and most is cut off" in err
    np.savetxt("x.csv", ["age", "1"], "%s")
    with pytest.raises(UsageError, match="names no columns: give it a photograph"):
        await typed("predict", "x.csv")


async def test_what_nothing_shows_is_said(folder: Path, typed: Any) -> None:
    """Without samples: in words, and in JSON."""
    words = ("upload", "net.py:Waves", "--input", '{"kind": "array", "shape": [3], "low": -99, "high": 99}')
    assert "tessera: layer 'sin' is Function: it is approximated on" in (await typed(*words))[1]
    (doubt,) = json.loads((await typed(*words, "--json"))[0])["warnings"]
    assert "for inputs of the network in [-99, 99]" in doubt
    np.save("threes.npy", np.linspace(-3, 3, 30).reshape(10, 3))
    assert json.loads((await typed(*words, "--samples", "threes.npy", "--json"))[0])["warnings"] == []
    # What is right wherever its inputs are leaves no doubt.
    grey = ("upload", "net.py:grey", "--input", '{"kind": "array", "shape": [1, 16, 16], "low": -99, "high": 99}')
    assert json.loads((await typed(*grey, "--json"))[0])["warnings"] == []


async def test_classes_that_do_not_exclude_each_other(folder: Path, typed: Any) -> None:
    for activation, wanted in (
        ("sigmoid", ["a (98%), c (73%)", "none (at most 27%)"]),
        ("none", ["a (4)", "b (-1)"]),
    ):
        classes = json.dumps({"labels": [{"name": name} for name in "abc"], "activation": activation})
        net = Sequential({"out": Linear(3, 3)}).architecture((3,))
        Model(net, {"out.weight": np.eye(3), "out.bias": np.zeros(3)}).save("toy.safetensors")
        await typed("upload", "toy.safetensors", "--range", "-8", "8", "--classes", classes)
        np.save("x.npy", [[4.0, -1.0, 1.0], [-3.0, -1.0, -2.0]])
        out, _ = await typed("predict", "x.npy")
        assert out.splitlines() == [f"x.npy[{i}]: {answer}" for i, answer in enumerate(wanted)]
    # Of a network whose owner says nothing, numbers alone.
    await typed("upload", "toy.safetensors", "--name", "bare")
    np.save("x.npy", np.full((1, 3), 0.5))
    assert (await typed("predict", "x.npy", "--model", "bare"))[0] == "x.npy: [0.5, 0.5, 0.5]\n"
