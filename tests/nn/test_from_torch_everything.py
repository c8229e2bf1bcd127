"""Whatever torch has: a model that gives its results, or an error with layer, line, reason and remedy; nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn as tn
from torch.nn import functional as F

from mpc.errors import UsageError
from nn import Model, from_torch

PARTS = re.compile(r"(?:- )?(?:layer '|forward|'|\w+\b).*?: .+; instead: .+ \[.+\]", re.DOTALL)
"""Layer: reason; instead: remedy [line]."""

ARGUMENTS: tuple[tuple[object, ...], ...] = ((), (2,), (4,), (4, 4), (4, 4, 3), (2, 4), (4, 2, 1), (2, 0.5), (4, 4, 4))
SHAPES = ((2, 4), (2, 4, 6), (2, 4, 6, 6), (2, 4, 4, 4, 4), (4,))


def layers() -> Iterator[type[tn.Module]]:
    """Every class of torch.nn, by name."""
    for name in sorted(vars(tn)):
        kind = getattr(tn, name)
        if isinstance(kind, type) and issubclass(kind, tn.Module):
            yield kind


def made(kind: type[tn.Module]) -> Iterator[tn.Module]:
    """Small ones of it; none, where it takes other things than numbers."""
    for arguments in ARGUMENTS:
        try:
            yield kind(*arguments).eval()
        except Exception:  # noqa: BLE001 - what it takes is found out by trying
            continue


def fitting(module: tn.Module) -> torch.Tensor | None:
    """An input that it takes, positive: no function has a pole there."""
    for shape in SHAPES:
        x = torch.rand(shape) + 0.5
        try:
            with torch.no_grad():
                if isinstance(module(x.clone()), torch.Tensor):
                    return x
        except Exception:  # noqa: BLE001 - as above
            continue
    return None


def check(module: object, samples: torch.Tensor | None) -> bool:
    """Whether it became a model, which then gives the same."""
    try:
        model = from_torch(module, samples)
    except UsageError as error:
        assert "tensor(" not in str(error)
        first, *more = str(error).split("\n")
        for part in more or [first]:
            assert PARTS.fullmatch(part), part
        return False
    assert isinstance(model, Model)
    if samples is not None:
        given = samples.numpy().copy()
        with torch.no_grad():
            want = module(samples).numpy()
        assert np.abs(model.plain(given) - want).max() <= 0.011 * np.abs(want).max()
    return True


@pytest.fixture(autouse=True)
def _quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No traceback is printed, whoever caught it."""
    torch.manual_seed(0)
    yield
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.sampled(8)
@pytest.mark.parametrize("kind", list(layers()), ids=lambda kind: kind.__name__)
@pytest.mark.filterwarnings("ignore")
def test_every_layer(kind: type[tn.Module]) -> None:
    """Alone and in a network, with samples and without."""
    found = list(made(kind))
    for module in found[-2:]:
        x = fitting(module)
        alone = check(module, x)
        if x is None or not x.ndim:
            check(tn.Sequential(tn.Identity(), module), None)
        else:
            assert check(tn.Sequential(tn.Identity(), module), x) == alone


FUNCTIONS = sorted(
    name
    for name, function in vars(F).items()
    if callable(function) and not name.startswith("_") and getattr(function, "__module__", "").startswith("torch")
)


class Calls(tn.Module):
    """A function of its input, and of a weight where it takes one more."""

    def __init__(self, function, *more):
        super().__init__()
        self.function, self.more = function, more
        self.weight = tn.Parameter(torch.rand(4, 4))

    def forward(self, x):
        y = self.function(x, *(self.weight if each is None else each for each in self.more))
        return y if isinstance(y, torch.Tensor) else y[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("ignore")
def test_every_function(name: str) -> None:
    for more in ((), (2,), (None,)):
        module = Calls(getattr(F, name), *more)
        check(module, fitting(module))


METHODS = """
    abs add all amax argmax bmm cat ceil clamp cos cumsum diag diff div double dot einsum eq erf exp expand flip
    floor float gather half histc index_select int inverse isnan item kthvalue log log1p logsumexp lt
    masked_fill matmul max mean median min mm mul nonzero norm numpy permute pow prod repeat reshape roll round
    rsqrt sigmoid sign sin sort split sqrt squeeze std sum svd t tanh tolist topk trace transpose tril unbind
    unfold unique var view where zero_ relu_ sigmoid_ add_ mul_ clamp_ fill_ copy_ uniform_ T mT shape dtype
    ndim data grad is_cuda device requires_grad
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS.split())
@pytest.mark.filterwarnings("ignore")
def test_methods_and_attributes(name: str) -> None:
    def forward(x, *more):
        found = getattr(x, name)
        return x + found(*more) if callable(found) else x * found

    for more in ((), (1,), (None,)):
        module = Calls(forward, *more)
        check(module, fitting(module))


class Rearrange(tn.Module):
    """As a layer of einops: it knows tensors by their type."""

    def forward(self, x):
        if type(x) is not torch.Tensor:
            raise RuntimeError(f"Tensor type unknown to einops {type(x)}")
        return x.reshape(len(x), -1)


Rearrange.__module__ = "einops.layers.torch"


class Sliced(tn.Module):
    def __init__(self):
        super().__init__()
        self.layers = tn.Sequential(tn.Linear(4, 4), tn.Sigmoid(), tn.RReLU())

    def forward(self, x):
        return self.layers[1:](self.layers[:1](x))


class Masked(tn.Module):
    def __init__(self):
        super().__init__()
        self.fc = tn.Linear(4, 4)

    def forward(self, x, mask=None, *, scale=1.0):
        return self.fc(x) * scale if mask is None else x * mask


def sparse() -> tn.Module:
    layer = tn.Linear(4, 4)
    layer.weight = tn.Parameter(layer.weight.detach().to_sparse())
    return layer


def normed() -> tn.Module:
    return torch.nn.utils.parametrizations.weight_norm(tn.Linear(4, 4))


def replaced() -> tn.Module:
    layer = tn.Linear(4, 4)
    layer.forward = torch.sigmoid
    return layer


def hooked() -> tn.Module:
    net = tn.Sequential(tn.Linear(4, 4))
    net[0].register_forward_hook(lambda module, inputs, result: result * 2)
    return net


SAMPLED = None
"""What is taken apart, by sizes that samples have."""

NETWORKS = {
    "AdaptiveAvgPool2d with None": (
        lambda: tn.Sequential(tn.Unflatten(1, (1, 2, 2)), tn.AdaptiveAvgPool2d((None, 1))),
        SAMPLED,
    ),
    "scripted": (lambda: torch.jit.script(tn.Linear(4, 4)), False),
    "traced": (lambda: torch.jit.trace(tn.Linear(4, 4), torch.zeros(1, 4)), False),
    "scripted within": (lambda: tn.Sequential(tn.Tanh(), torch.jit.script(tn.Linear(4, 4))), False),
    "a function": (lambda: torch.sigmoid, False),
    "a class": (lambda: tn.Linear, False),
    "weights": (lambda: tn.Linear(4, 4).state_dict(), False),
    "sliced": (lambda: tn.Sequential(tn.Linear(4, 4), tn.Tanh(), tn.RReLU())[:2], True),
    "sliced in forward": (Sliced, False),
    "einops": (lambda: tn.Sequential(tn.Linear(4, 4), Rearrange()), False),
    "meta": (lambda: tn.Linear(4, 4, device="meta"), False),
    "sparse": (sparse, False),
    "lazy": (lambda: tn.LazyLinear(4), False),
    "an argument that may be missing": (Masked, True),
    "several inputs": (lambda: tn.Bilinear(4, 4, 4), False),
    "parametrized": (normed, SAMPLED),
    "forward replaced": (replaced, False),
    "hooks of a layer": (hooked, SAMPLED),
    "of fx": (lambda: torch.fx.symbolic_trace(tn.Sequential(tn.Linear(4, 4), tn.Tanh())), True),
    "empty": (tn.Sequential, True),
    "a name that no model has": (
        lambda: tn.Sequential(__import__("collections").OrderedDict({"a b": tn.Tanh()})),
        False,
    ),
    "a weight as an exponent": (lambda: Calls(lambda x, weight: x**weight, None), False),
    "a variance below zero": (lambda: tn.BatchNorm1d(4, eps=-2.0), False),
}


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize(("make", "works"), NETWORKS.values(), ids=NETWORKS)
@pytest.mark.filterwarnings("ignore")
def test_odd_networks(make: object, works: bool | None, sampled: bool) -> None:
    assert check(make(), torch.rand(3, 4) if sampled else None) == (sampled if works is SAMPLED else works)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_exported_and_compiled_programs() -> None:
    assert check(torch.compile(tn.Linear(4, 4)), torch.rand(3, 4))
    program = torch.export.export(tn.Sequential(tn.Linear(4, 4), tn.Tanh()), (torch.zeros(2, 4),))
    for module in (program, program.module(), tn.Sequential(program.module())):
        assert not check(module, None)


class Attention(tn.Module):
    def __init__(self):
        super().__init__()
        self.rows = Rearrange()
        self.fc = tn.Linear(4, 4)
        self.act = tn.RReLU()
        self.lstm = tn.LSTM(4, 4)

    def forward(self, x):
        x = self.rows(x)
        x = self.act(self.fc(x))
        x, _ = self.lstm(x)
        return F.softmin(x, 1)


class Looping(tn.Module):
    def __init__(self):
        super().__init__()
        self.act = tn.RReLU()
        self.pool = tn.LPPool3d(2, 2)

    def forward(self, x):
        x = self.act(x)
        for row in x:
            x = x + row
        return self.pool(x)


@pytest.mark.parametrize("sampled", [False, True])
def test_all_blockers_are_named_at_once(sampled: bool) -> None:
    """Behind a module that cannot be followed, and behind where forward itself cannot be."""
    x = torch.rand(2, 4) if sampled else None
    for module, names in (
        (Attention(), ["Rearrange", "'act' is RReLU", "'lstm' is LSTM", "'softmin' in"]),
        (Looping(), ["forward of Looping", "'act' is RReLU", "'pool' is LPPool3d"]),
        (tn.Sequential(sparse(), tn.RReLU(), tn.Linear(4, 4, device="meta")), ["sparse", "RReLU", "meta"]),
    ):
        with pytest.raises(UsageError) as caught:
            from_torch(module, x)
        lines = str(caught.value).split("\n")
        assert lines[0].startswith(f"{len(names)} things of {type(module).__name__} ")
        for name in names:
            assert sum(name in line for line in lines[1:]) == 1, name
        if not isinstance(module, tn.Sequential):
            assert f"{__file__.rpartition('/')[2]}:" in lines[1]
