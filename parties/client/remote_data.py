"""A data set that lies on the parties as shares."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import msgspec

from mpc.errors import UsageError
from mpc.operation import Stored
from nn.model import Description
from parties.client.remote_model import RemoteModel
from parties.messages.bindings import slot_of
from parties.stored.data_set import DataDescription, is_data
from protocols.trace.secret_tensor import SecretTensor, leaf


class RemoteData:
    """A data set stored on the parties: its tensors, by name, as leaves of expressions."""

    def __init__(
        self,
        name: str,
        owner: str,
        version: str,
        description: DataDescription,
        parts: int = 0,
        *,
        joint: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.owner = owner
        self.version = version
        self.description = description
        self.slot = slot_of(owner, name)
        """Where programs read it."""
        self.parts = parts
        """Of data, that runs have drawn one after the other to make it: see ``drawn``."""
        self.joint = tuple(joint)
        """To whom it belongs beside its owner, as it was when it was asked for."""
        self._tensors = {tensor: t.source(self.slot, tensor) for tensor, t in description.tensors.items()}

    @property
    def leaves(self) -> Collection[SecretTensor]:
        """Its tensors, as expressions."""
        return self._tensors.values()

    def __getitem__(self, tensor: str) -> SecretTensor:
        try:
            return self._tensors[tensor]
        except KeyError:
            known = ", ".join(self._tensors)
            raise UsageError(f"the data set {self.name!r} has no tensor {tensor!r}: it has {known}") from None

    def drawn(self, tensor: str, rows: int) -> SecretTensor:
        """So many of the tensor's rows, which a run draws: other ones in each run of a chain, all as often as any.

        A chain is of runs that read what the run before has kept.  Which rows come is public, and nobody's choice
        (``protocols.readings.drawing``); the program is the same in all runs.  Tensors of a data set that have as many
        rows go together.  Raises UsageError for more rows than there are, or none.
        """
        return leaf(self.draws(tensor, rows))

    def draws(self, tensor: str, rows: int) -> Stored:
        """What a program has for that.  Raises as ``drawn``."""
        self[tensor]
        there = self.description.tensors[tensor]
        if not there.shape or not 0 < rows <= there.shape[0]:
            raise UsageError(
                f"{tensor!r} of {self.name!r} has a shape of {there.shape}: there are no {rows} rows of it"
            )
        return msgspec.structs.replace(
            there.leaf(self.slot, tensor), shape=(rows, *there.shape[1:]), rows=there.shape[0]
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {t.shape}" for name, t in self.description.tensors.items())
        return f"<RemoteData {self.name!r} of {self.owner}: {shapes}>"


def remote(
    name: str, owner: str, version: str, description: bytes, parts: int = 0, *, joint: Sequence[str] = ()
) -> RemoteModel | RemoteData:
    """What lies on the parties under ``name``, by its description.  Raises UnsupportedError if it is neither."""
    if is_data(description):
        return RemoteData(name, owner, version, DataDescription.decode(description), parts, joint=joint)
    return RemoteModel(name, owner, version, Description.decode(description), parts, joint=joint)
