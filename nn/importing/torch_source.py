"""A torch module as that with which a model is compared: in float64 if it can be.  Needs torch."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from mpc.errors import ShapeError
from nn.importing.blockers import Blocker, refuse, said_by
from nn.importing.torch_activation import FourierActivation
from nn.importing.torch_inputs import TorchTakes
from nn.importing.torch_norms import epsilon_of
from nn.importing.torch_sizes import told_apart
from nn.importing.torch_trace import forward_line
from nn.layer import Array

ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}
"""By what a network is evaluated in: how far rounding may take what is the same function, in parts of its scale."""

_SEEN = (
    "write what its forward does there with torch's functions of tensors alone: a branch on types, or numbers that"
    " change from call to call, are not seen by whoever traces it"
)


class TorchSource:
    """The network, to be run on arrays: in float64 if it can be, or else in its own type."""

    def __init__(
        self, network: nn.Module, own: nn.Module, takes: TorchTakes | None = None, *, copied: bool = True
    ) -> None:
        """``own``: a copy of it, or the very same where it could not be ``copied``; ``takes``: what a model takes."""
        self._takes = takes
        self.kind = type(network).__name__
        self.line = forward_line(network)
        self.seen = _SEEN
        self._series = any(isinstance(m, FourierActivation) for m in network.modules())
        self._own = own
        self._copied = copied and own is not network
        self.dtype = next(
            (t.dtype for t in (*own.parameters(), *own.buffers()) if t.is_floating_point()), torch.get_default_dtype()
        )
        self.network = own
        if self._copied:
            self.network, self.dtype = copy.deepcopy(own), torch.float64
            for module in self.network.modules():
                if type(module) is nn.RMSNorm:
                    module.eps = epsilon_of(module)
            self.network.to("cpu", torch.float64)

    @property
    def rounding(self) -> float | None:
        """None where it has the parties' approximations for its own functions."""
        return None if self._series else ROUNDING.get(self.dtype)

    def __call__(self, x: Array) -> Array:
        """Its results.  Raises ShapeError for inputs that it does not take."""
        try:
            return self._run(x)
        except Exception as error:  # noqa: BLE001 - whatever forward raises
            if self.network is self._own:
                reason = f"it does not take inputs of shape {x.shape}: {said_by(error)}"
                remedy = "give a batch (N, ...) of what it does take"
                blocker = Blocker(self.kind, reason, remedy, self.line, ShapeError)
                raise refuse(self.kind, [blocker]) from None
        # It makes numbers of its own type on the way.
        before = self.network, self.dtype
        self.network = self._own
        self.dtype = next((p.dtype for p in self._own.parameters() if p.is_floating_point()), torch.float32)
        try:
            return self(x)
        except ShapeError:
            # It was not the type.
            self.network, self.dtype = before
            raise

    def _run(self, x: Array) -> Array:
        with torch.no_grad():
            if self._takes is None:
                result = self.network(torch.from_numpy(x.copy()).to(self.dtype))
            else:
                args, named = self._takes.tensors(x, self.dtype)
                result = self.network(*args, **named)
        # A dict or a record of one tensor is that; several are rows.
        found = [each.detach().double().numpy() for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
        if len(found) > 1:
            return np.concatenate([each.reshape(len(x), -1) for each in found], axis=1)
        (single,) = found
        return np.asarray(single)

    def told_apart(self, x: Array) -> list[int]:
        """None of a network that could not be copied: it would keep what it is shown."""
        return told_apart(self.network, x, self.dtype, self._takes) if self._copied else []

    def layers(self, x: Array, names: set[str]) -> dict[str, list[Array]]:
        """What each of these layers gives, call after call."""
        found: dict[str, list[Array]] = defaultdict(list)

        def keep(name: str) -> Any:
            return lambda module, inputs, result: found[name].append(result.detach().double().numpy().copy())

        hooks = [
            module.register_forward_hook(keep(name or "0"))
            for name, module in self.network.named_modules()
            if (name or "0") in names
        ]
        try:
            self._run(x)
        finally:
            for hook in hooks:
                hook.remove()
        return found
