"""What a module's forward does, as a graph: traced with stand-ins for tensors, and watched meanwhile.  Needs torch.

A stand-in says that it is a tensor, has a tensor's attributes and no others, and records ``+=`` as what it is.  What
forward draws at random is noticed, and so are weights that it changes.  Where it cannot be followed through a module of
the network, that module is left whole, and the rest is traced all the same: whoever imports learns of everything at
once.
"""

from __future__ import annotations

import builtins
import contextlib
import inspect
import itertools
import operator
import random
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import fx, nn
from torch.fx.proxy import TraceError
from torch.overrides import TorchFunctionMode

from nn.importing.blockers import Blocker, calling_line, line_of, said_by
from nn.importing.torch_layers import MODULES

WHOLE = "network"
"""The module's name in what holds it: the first part of all paths of the graph."""

MOST_LEFT_WHOLE = 64
"""Modules that cannot be followed, until the rest is left alone."""

OWN_FOLDERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<frozen ", "<string>", "<eval_with_key>")
"""Lines in these are nobody's forward."""

SIZES = frozenset(("size", "dim", "numel", "ndimension"))
SIZE_ATTRIBUTES = frozenset(("shape", "ndim"))

CHANGING = ("add", "sub", "mul", "truediv", "matmul", "pow", "floordiv", "mod", "and", "or", "xor")
"""Operators that have a form in place, as ``+=``."""

RANDOM = "compute nothing at random: draw it once, keep it as a buffer, or leave it out in evaluation (self.training)"
VALUES = (
    "it must not branch or loop on a tensor's values",
    ("decide by options that __init__ is given, or compute both ways and choose by a sum of products"),
)
PARTS = (
    "it must not loop over a tensor, or over the parts of one, as it is traced",
    ("give from_torch samples: torch.export follows it then; or name the parts one by one"),
)
NUMBERS = (
    "it must not branch or loop on a tensor's sizes, which are not known while it is traced",
    ("leave the check out, or decide by options that __init__ is given"),
)

FACTS: dict[str, Any] = {
    "grad": None,
    "grad_fn": None,
    "requires_grad": False,
    "is_nested": False,
    "is_sparse": False,
    "is_quantized": False,
    "is_meta": False,
    "is_cuda": False,
    "layout": torch.strided,
    "device": torch.device("cpu"),
    "dtype": torch.float32,
}
"""Attributes that are the same for every tensor here."""


class Trace(NamedTuple):
    """What was found out."""

    holder: nn.Module
    """Whose one child, ``WHOLE``, is the module; the graph's names are looked up in it."""
    graph: fx.Graph
    blockers: list[Blocker]
    whole: frozenset[str]
    """Modules that could not be followed, by their names in the graph: each has its blocker."""
    stopped: bool
    """Whether the graph ends where forward itself could not be followed."""


class _Holder(nn.Module):
    """Something to be a part of: so a single layer has a name, and hooks of the whole are called."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.add_module(WHOLE, network)
        self.eval()

    def forward(self, x: torch.Tensor) -> Any:
        return self.get_submodule(WHOLE)(x)


class _Stopped(Exception):  # noqa: N818 - never seen outside
    """Raised through the modules around the one that could not be followed."""

    def __init__(self, path: str, reason: Blocker) -> None:
        super().__init__(path)
        self.path, self.reason = path, reason


class _Number(fx.Proxy):
    """Stands for a size."""


class _Tensor(fx.Proxy):
    """Stands for a tensor: whoever asks is told so (``_told_so``), and goes the way that forward goes for tensors."""

    def __getattr__(self, k: str) -> Any:
        if k in FACTS:
            return FACTS[k]
        if not hasattr(torch.Tensor, k):
            raise AttributeError(f"'Tensor' object has no attribute {k!r}")
        return super().__getattr__(k)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})


def _in_place(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    def operate(self: Any, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return operate


_Tensor.__name__ = "Tensor"  # what forward may look at, too
for _name in CHANGING:
    setattr(_Tensor, f"__i{_name}__", _in_place(getattr(operator, f"i{_name}")))


class _Tracer(fx.Tracer):
    def __init__(self, whole: dict[str, Blocker]) -> None:
        super().__init__()
        self._whole = whole
        self.drawn: list[Blocker] = []
        self.asked: list[Blocker] = []
        """What it was refused to know; forward may have caught that, and gone on."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return bool(
            type(m) in MODULES
            or module_qualified_name in self._whole
            or isinstance(m, torch.jit.ScriptModule)
            or super().is_leaf_module(m, module_qualified_name)
        )

    def path_of_module(self, mod: nn.Module) -> str:
        try:
            return super().path_of_module(mod)
        except NameError:  # made by forward itself, as a slice of a Sequential is
            name = next(n for i in itertools.count() if not hasattr(self.root, n := f"{type(mod).__name__}_{i}"))
            self.root.add_module(name, mod)
            self.submodule_paths = {**(self.submodule_paths or {}), mod: name}
            return name

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except _Stopped:
            raise
        except Exception as error:
            raise _Stopped(self.path_of_module(m), _cannot_follow(m, error)) from error

    def to_bool(self, obj: fx.Proxy) -> bool:
        self._refuse(obj)

    def iter(self, obj: fx.Proxy) -> Any:
        self._refuse(obj, PARTS)

    def keys(self, obj: fx.Proxy) -> Any:
        self._refuse(obj)

    def _refuse(self, asked: fx.Proxy, why: tuple[str, str] = VALUES) -> NoReturn:
        reason, remedy = NUMBERS if is_size(asked.node) else why
        source = calling_line(OWN_FOLDERS, trace.__name__)
        self.asked.append(Blocker("a branch or loop of forward", reason, remedy, source))
        raise TraceError(reason)

    def create_arg(self, a: Any) -> Any:
        # Before it is asked whether it is a tensor.
        return a.node if issubclass(type(a), fx.Proxy) else super().create_arg(a)

    def create_node(self, kind: str, target: Any, *rest: Any, **named: Any) -> fx.Node:
        node = super().create_node(kind, target, *rest, **named)
        node.meta["source"] = calling_line(OWN_FOLDERS, trace.__name__)
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Number(node, self) if is_size(node) else _Tensor(node, self)


def is_size(node: fx.Node) -> bool:
    """Whether it is a size, or some, and no tensor."""
    if node.op == "call_method" and node.target in SIZES:
        return True
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in SIZE_ATTRIBUTES
    sizes = [argument for argument in node.args if isinstance(argument, fx.Node)]
    return getattr(node.target, "__module__", "") in ("_operator", "math") and bool(sizes) and all(map(is_size, sizes))


class _Watching(TorchFunctionMode):
    """Notices what draws random numbers."""

    def __init__(self, tracer: _Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = torch.get_rng_state()
        result = func(*args, **(kwargs or {}))
        if not torch.equal(before, torch.get_rng_state()):
            name = getattr(func, "__name__", str(func))
            source = calling_line(OWN_FOLDERS, trace.__name__)
            self._tracer.drawn.append(Blocker(f"{name!r} in forward", "it draws random numbers", RANDOM, source))
        return result


def trace(module: nn.Module) -> Trace:
    """The graph of ``module``, which is in evaluation mode then; random numbers stay what they are."""
    whole: dict[str, Blocker] = {}
    while True:
        holder, tracer = _Holder(module), _Tracer(whole)
        stopped = False
        try:
            with _unchanged_randomness(module, tracer), _told_so():
                tracer.trace(holder)
        except _Stopped as error:
            whole[error.path] = error.reason
            stopped = error.path == WHOLE or len(whole) > MOST_LEFT_WHOLE
            if not stopped:
                continue
        except Exception as error:  # noqa: BLE001 - of what forward returns, or of a call that is no module's own
            whole[WHOLE], stopped = _cannot_follow(module, error), True
        said = {blocker.source for blocker in whole.values()}
        asked = [blocker for blocker in tracer.asked if blocker.source not in said]
        return Trace(holder, tracer.graph, [*tracer.drawn, *whole.values(), *asked], frozenset(whole), stopped)


@contextlib.contextmanager
def _told_so() -> Iterator[None]:
    """Whoever asks for a while whether a stand-in is a tensor hears that it is.

    Python asks nobody but a value's type and ``__class__``, and torch's own C++ takes whatever says so there for a
    tensor in memory.  So the question itself is answered otherwise, as ``torch.fx`` has calls of modules answered.
    """
    ask = builtins.isinstance

    def answer(value: Any, kinds: Any) -> bool:
        return ask(value, kinds) or (type(value) is _Tensor and _tensors_are(kinds))

    builtins.isinstance = answer
    try:
        yield
    finally:
        builtins.isinstance = ask


def _tensors_are(kinds: Any) -> bool:
    if type(kinds) is tuple:
        return any(map(_tensors_are, kinds))
    if type(kinds) is types.UnionType:
        return any(map(_tensors_are, kinds.__args__))
    return type(kinds) in (type, type(torch.Tensor)) and issubclass(torch.Tensor, kinds)


@contextlib.contextmanager
def _unchanged_randomness(module: nn.Module, tracer: _Tracer) -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]), _Watching(tracer):
            yield
        if random.getstate() != python or not _same(np.random.get_state(), numpy):
            tracer.drawn.append(
                Blocker("forward", "it draws random numbers of Python or NumPy", RANDOM, forward_line(module))
            )
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def forward_needs(module: nn.Module) -> tuple[int, int | None]:
    """How many tensors a forward needs at least, and takes at most (None: any number)."""
    try:
        found = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return 1, None
    places = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in found if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return len(needed), None if any(p.kind == p.VAR_POSITIONAL for p in found) else len(places)


def forward_line(module: nn.Module) -> str:
    """Where its forward begins."""
    code = getattr(type(module).forward, "__code__", None)
    return line_of(code.co_filename, code.co_firstlineno) if code is not None else ""


def _cannot_follow(module: nn.Module, error: Exception) -> Blocker:
    where = f"forward of {type(module).__name__}"
    source = _raised_at(error)
    if isinstance(error, TraceError):
        remedy = dict((VALUES, PARTS, NUMBERS)).get(str(error), VALUES[1])
        return Blocker(f"{where} cannot be traced", said_by(error), remedy, source)
    if type(module).__module__.partition(".")[0] == "einops":
        remedy = "write it as reshape and permute"
        return Blocker(f"{where} cannot be traced", f"einops takes tensors alone ({said_by(error)})", remedy, source)
    reason = f"{type(error).__name__}: {said_by(error)}"
    remedy = "write that line with torch's functions of tensors alone, or leave it out of what is imported"
    return Blocker(f"{where} cannot be traced", reason, remedy, source)


def _raised_at(error: BaseException) -> str:
    """The innermost line of the traceback that is somebody's own."""
    found, step = "", error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if not file.startswith(OWN_FOLDERS):
            found = line_of(file, step.tb_lineno)
        step = step.tb_next
    return found
