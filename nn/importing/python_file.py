"""A network that a Python file of the user's own makes.  The file is run, as ``python file.py`` would run it."""

from __future__ import annotations

import importlib.util
import operator
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mpc.errors import ConfigurationError, TesseraError, UsageError, printable
from nn.importing.from_torch import from_torch
from nn.interface import AnyInput, Interface
from nn.layer import Array
from nn.model import Model

Result = TypeVar("Result")

_MODULE = "tessera_uploaded"
"""What the file is called among Python's modules, whatever its name: ``nn.py`` would hide ours."""


def model_from(path: Path, name: str, samples: Array | None = None, takes: AnyInput | None = None) -> Model:
    """``name`` of a file: a ``Model``, a ``torch.nn.Module``, or what makes one when it is called without arguments.

    ``samples`` are for ``from_torch``, and so is what the network ``takes``, where it is known.  Raises
    ConfigurationError for a file that is not there, UsageError, with the line, for what fails in it or is no network,
    and what ``from_torch`` raises.
    """
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")
    called = f"{path}:{name}"
    module = _run(path, f"{path} cannot be run", lambda: _executed(path))
    try:
        found = operator.attrgetter(name)(module)
    except AttributeError:
        raise UsageError(f"{path} has nothing called {name}") from None
    if callable(found) and not isinstance(found, Model) and not _is_module(found):
        make = found
        found = _run(path, f"{called} cannot be called without arguments", lambda: make())
    if isinstance(found, Model):
        if samples is not None:
            raise UsageError(f"{called} is a model of ours already: samples are for networks of PyTorch")
        return found
    if not _is_module(found):
        what = type(found).__name__
        raise UsageError(f"{called} is {what}: name a torch.nn.Module, a tessera.Model, or a function that makes one")
    import torch

    example = None if samples is not None or takes is None else torch.zeros(2, *takes.shape)
    return from_torch(found, samples, example_input=example, interface=Interface(takes))


def _executed(path: Path) -> object:
    """The file as a module, beside whose file others may be imported."""
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise UsageError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    spec.loader.exec_module(module)
    return module


def _is_module(found: object) -> bool:
    """Whether it is a module of torch, which is there if it is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(found, torch.nn.Module | torch.jit.ScriptFunction)


def _run(path: Path, failing: str, work: Callable[[], Result]) -> Result:
    try:
        return work()
    except TesseraError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's own code does
        frames, own = traceback.extract_tb(error.__traceback__), path.resolve()
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == own]
        if isinstance(error, SyntaxError):
            lines.append(error.lineno)
        where = f", line {lines[-1]}" if lines else ""
        what = f"{type(error).__name__}: {printable(str(error))}".rstrip(": ")
        raise UsageError(f"{failing}{where}: {what}") from None
