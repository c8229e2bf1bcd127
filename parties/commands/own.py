"""What `tessera upload` is given: a model's file, an installed model, a data set; and what is to be said of it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from mpc.errors import ConfigurationError, UnsupportedError, UsageError
from nn.activations import Sigmoid
from nn.architecture import decode_json
from nn.importing.from_onnx import from_onnx
from nn.importing.python_file import model_from
from nn.importing.samples import MOST_SAMPLES
from nn.inputs import ArrayInput
from nn.interface import AnyInput, Classes, Interface, Label
from nn.layer import Array
from nn.model import Model
from nn.reading import load_array, open_file
from nn.softmax import Softmax
from parties.client.remote_model import Uploadable
from parties.commands.chosen import installed_model
from parties.stored.data_set import DataSet

_IN_PYTHON = re.compile(r"(.+\.py):([A-Za-z_][\w.]*)")
_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib", ".h5", ".keras", ".pb", ".tflite", ".gguf")
_SAID = ("samples", "input", "range", "classes", "notice")


class Given(NamedTuple):
    """What is to be stored, and what to call it unless the user says so."""

    name: str
    secret: Uploadable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that say what is uploaded."""
    parser.add_argument(
        "what",
        metavar="WHAT",
        help="a model: net.safetensors (of Model.save), net.onnx, net.py:NAME (a torch module, a Model, or what makes"
        " one), or the name of one that an installed package brings; or arrays, a data set: x.npz",
    )
    parser.add_argument("--name", help="what to call it (default: as the file, or what is named in it)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of an installed model, in safetensors")
    parser.add_argument(
        "--samples",
        type=Path,
        metavar="FILE",
        help="inputs (.npy, .csv) on which a network of PyTorch or ONNX is compared with ours",
    )
    parser.add_argument(
        "--input", metavar="JSON", help='what it takes, as text or a file: {"kind": "image" | "table" | "array", ...}'
    )
    parser.add_argument(
        "--range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="where all values of inputs, or of data, lie"
    )
    parser.add_argument("--classes", metavar="A,B,C", help="what its results are called; or JSON, as text or a file")
    parser.add_argument("--notice", help="to be shown with every answer")


def given(options: argparse.Namespace) -> Given:
    """What the options say.  Raises UsageError, ConfigurationError, and what whoever makes the model does."""
    what: str = options.what
    path = Path(what)
    if path.suffix == ".npz":
        _refuse(options, "a data set", "weights", *(name for name in _SAID if name != "range"))
        if options.range is None:
            raise UsageError("a data set needs --range LOW HIGH, in which all values lie: it becomes public")
        return Given(path.stem, DataSet.load(path, low=options.range[0], high=options.range[1]))
    takes: AnyInput | None = None if options.input is None else _json(options.input, AnyInput, "--input")
    if found := _IN_PYTHON.fullmatch(what):
        _refuse(options, "a network of a Python file", "weights")
        samples = None if options.samples is None else _samples(options, takes)
        model = model_from(Path(found[1]), found[2], samples, takes)
        return Given(found[2].split(".")[-1], _said(model, options, takes))
    if path.suffix == ".onnx":
        _refuse(options, what, "weights")
        samples = None if options.samples is None else _samples(options, takes)
        return Given(path.stem, _said(from_onnx(path, samples, interface=Interface(takes)), options, takes))
    _refuse(options, what, "samples", why="they are for networks of PyTorch, given as net.py:NAME, and of ONNX")
    if path.suffix == ".safetensors":
        _refuse(options, what, "weights")
        return Given(path.stem, _said(Model.load(path), options, takes))
    _check_kind(path)
    installed = installed_model(what, options.weights)
    if isinstance(installed, Model):
        return Given(what, _said(installed, options, takes))
    _refuse(options, what, *_SAID)
    return Given(what, installed)


def _refuse(options: argparse.Namespace, what: str, *names: str, why: str = "") -> None:
    """Raises UsageError for options that do not go with it."""
    for name in names:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} does not go with {what}{': ' if why else ''}{why}")


def _check_kind(path: Path) -> None:
    """Raises UnsupportedError for a file that no model can be made of, saying what to give instead."""
    instead = "give the Python file that makes the network, as net.py:NAME, or what Model.save has written"
    if path.suffix == ".py":
        raise UsageError(f"say which network of {path}: {path}:NAME")
    if path.suffix in _PICKLES:
        raise UnsupportedError(f"{path}: such a file holds no network that can be read without running it: {instead}")


def _said(model: Model, options: argparse.Namespace, takes: AnyInput | None) -> Model:
    """The model with what is said of it here, checked as its first prediction would."""
    interface, shape = model.interface, model.architecture.input_shape
    if options.range is not None:
        if takes is not None or shape is None:
            raise UsageError(
                "--input says the range, too: give no --range"
                if takes is not None
                else "--range goes with --samples, which say what shape inputs have; or give --input"
            )
        takes = ArrayInput(shape, *options.range)
    if takes is not None:
        interface = msgspec.structs.replace(interface, input=takes)
    if options.classes is not None:
        interface = msgspec.structs.replace(interface, output=_classes(options.classes, model))
    if options.notice is not None:
        interface = msgspec.structs.replace(interface, notice=options.notice)
    said = Model(model.architecture, model.weights, interface)
    said.description.check()
    return said


def _samples(options: argparse.Namespace, takes: AnyInput | None) -> Array:
    """The first of them, as the model will be given them.  Raises EncodingError, ShapeError."""
    path: Path = options.samples
    if takes is None and options.range is not None:
        takes = ArrayInput(load_array(path).shape[1:], *options.range)
    opened = open_file(path, Interface(takes), None if takes is None else takes.shape)
    return np.stack([opened.read(i).values for i in range(min(opened.count, MOST_SAMPLES))])


def _classes(words: str, model: Model) -> Classes:
    """As given; where it is not said what makes probabilities of a network's results, one that ends with that has."""
    last = model.architecture.steps[-1].layer
    activation: Literal["softmax", "none"] = "none" if type(last) in (Softmax, Sigmoid) else "softmax"
    if not words.endswith(".json") and not words.lstrip().startswith(("[", "{")):
        return Classes(tuple(Label(name.strip()) for name in words.split(",")), activation)
    found: Classes | tuple[Label | str, ...] = _json(words, Classes | tuple[Label | str, ...], "--classes")
    if isinstance(found, Classes):
        return found
    return Classes(tuple(Label(label) if isinstance(label, str) else label for label in found), activation)


def _json(words: str, kind: Any, option: str) -> Any:
    """Of a file, or of the words themselves.  Raises UsageError."""
    try:
        data = words.encode() if words.lstrip().startswith(("[", "{")) else Path(words).read_bytes()
        return decode_json(data, kind)
    except OSError as error:
        raise ConfigurationError(f"{option}: {words} cannot be read: {error.strerror}") from None
    except UnsupportedError as error:
        raise UsageError(f"{option}: {error}") from None
