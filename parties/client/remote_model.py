"""A model that lies on the parties as shares."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from mpc.errors import UsageError
from mpc.rings.field import FieldArray
from mpc.tensor_type import TensorType
from nn.model import Description
from nn.preprocessing import ImageInput
from nn.reading import no_pictures
from parties.messages.bindings import slot_of
from protocols.lowering.precision import watch_layers
from protocols.trace.secret_tensor import SecretTensor

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


class Uploadable(Protocol):
    """What ``upload`` takes: ``nn.Model``, or anything with these."""

    def encode(self) -> Mapping[str, FieldArray]:
        """The tensors to store, by name."""
        ...

    def describe(self) -> bytes:
        """An encoded ``nn.model.Description``."""
        ...


def check_uploadable(secret: object) -> None:
    """Raises UsageError, saying what to write, for what is no model or data set."""
    if callable(getattr(secret, "encode", None)) and callable(getattr(secret, "describe", None)):
        return
    what = "a PyTorch module" if "torch" in {kind.__module__.partition(".")[0] for kind in type(secret).__mro__} else ""
    if what and callable(getattr(secret, "forward", None)):
        becomes = "client.upload(ts.from_torch(net, samples), name)"
        raise UsageError(f"{what} is uploaded as what it becomes here: {becomes}")
    raise UsageError(
        f"{type(secret).__name__} is neither a model nor a data set: arrays are uploaded as"
        " client.upload(ts.DataSet({'x': array}, low=.., high=..), name)"
    )


class RemoteModel:
    """A model stored on the parties; call it with a secret tensor to get a lazy expression."""

    def __init__(
        self,
        name: str,
        owner: str,
        version: str,
        description: Description,
        parts: int = 0,
        *,
        joint: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.owner = owner
        self.version = version
        self.description = description
        """Architecture, types of the stored tensors, and what it says of itself; everything public about the model."""
        self.slot = slot_of(owner, name)
        """Where programs read it."""
        self.parts = parts
        """Of data, that runs have drawn one after the other to train it."""
        self.joint = tuple(joint)
        """To whom it belongs beside its owner, as it was when it was asked for."""
        self._stored = description.stored(self.slot)
        training = {name: t.source(self.slot, name, weight=True) for name, t in description.training.items()}
        self._tensors = {**self._stored, **training}
        self._watched: set[TensorType] = set()
        """Inputs of which it is known what its layers lose."""

    @property
    def leaves(self) -> Collection[SecretTensor]:
        """Its tensors, as expressions."""
        return self._tensors.values()

    def __getitem__(self, tensor: str) -> SecretTensor:
        """One of its tensors, as an expression: of its weights, or of what its training remembers."""
        try:
            return self._tensors[tensor]
        except KeyError:
            raise UsageError(f"the model {self.name!r} has no tensor {tensor!r}") from None

    def __call__(self, x: SecretTensor) -> SecretTensor:
        """The model on a secret batch (N, ...); nothing runs until the result is revealed."""
        if not isinstance(x, SecretTensor):
            raise UsageError(
                f"the model takes a secret tensor, not {type(x).__name__}: write"
                " model(client.share(x, low=.., high=..)), or client.predict(model, x)"
            )
        y = self.description.forward(x, self._stored)
        if x.type not in self._watched and not self.description.interface.compared:
            self._watched.add(x.type)
            watch_layers(y.node)
        return y

    @property
    def image_input(self) -> ImageInput:
        """How a photograph becomes its input.  Raises UsageError for a model that takes none, or does not say so."""
        takes = self.description.interface.input
        if isinstance(takes, ImageInput):
            return takes
        raise UsageError(
            f"the model {self.name!r} {no_pictures(takes)}: use client.predict(model, array), or have its owner upload"
            " it with interface=Interface(input=ImageInput(...))"
        )

    def __repr__(self) -> str:
        return f"<RemoteModel {self.name!r} of {self.owner}>\n{self.description.architecture}"


def checked_name(name: str) -> str:
    """``name``, if a model can be called that; else UsageError."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise UsageError(
            f"{name!r} is not a name for a model or a data set: use up to 64 letters, digits, '-', '_' and '.'"
        )
    return name
