"""Which model a command is about: one that is stored on the parties, or one that came with an installed package."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from mpc.errors import ConfigurationError, NoSuchName, NotPermitted, UsageError, printable
from parties.client.async_client import AsyncClient
from parties.client.queries import left_behind
from parties.client.remote_model import RemoteModel, Uploadable

GROUP = "tessera.models"
"""Of entry points: functions that make an ``nn.Model``, with the weights that ship or those of a file."""


async def chosen_model(client: AsyncClient, name: str | None) -> RemoteModel:
    """The stored one of that name; without one, the only one that this client may use.

    Raises UsageError, naming what there is, NotPermitted if there is nothing, and what ``AsyncClient.model`` does.
    """
    if name is None:
        names = sorted({entry.slot for entry in await client.models()})
        if len(names) != 1:
            for slot in [] if names else await client.left_behind():
                raise NotPermitted(left_behind(slot))
            if not names:
                raise NotPermitted(
                    "nothing is stored that this client may use: upload a model, or have its owner allow it"
                )
            raise UsageError(f"say which model with --model: there are {', '.join(names)}")
        (name,) = names
    return await client.model(name)


def installed_model(name: str, weights: Path | None) -> Uploadable:
    """The one that a package brings under that name; with the weights of a file.

    Raises NoSuchName, naming what there is, ConfigurationError for a package that is broken, and what the maker of the
    model does, such as for weights that are not its own.
    """
    found: dict[str, EntryPoint] = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise NoSuchName(
            f"no installed package brings a model {printable(name)!r}: there are {', '.join(sorted(found)) or 'none'};"
            " one's own is given as a file, net.safetensors or net.py:NAME"
        )
    try:
        make: Any = found[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"the model {name!r} cannot be loaded: {error}: install its package again") from None
    model: Uploadable = make() if weights is None else make(weights)
    return model
