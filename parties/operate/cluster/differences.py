"""What another cluster file changes, in words, and what is lost by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from parties.members.cluster import Cluster, Member
from parties.messages.status import SecretSeen


def differences(former: Cluster, new: Cluster) -> list[str]:
    """A sentence for each; none if only the number differs."""
    before, after = ({m.name: m for m in cluster.members} for cluster in (former, new))
    found = [f"{member.role} {name} goes" for name, member in before.items() if name not in after]
    for name, member in after.items():
        found += [f"{member.role} {name} comes"] if name not in before else _changed(before[name], member)
    orders = [
        [party.name for party in c.parties if party.name in before and party.name in after] for c in (former, new)
    ]
    if orders[0] != orders[1]:
        found.append("the parties are in another order")
    for setting in msgspec.structs.fields(new.settings):
        was, now = (getattr(cluster.settings, setting.name) for cluster in (former, new))
        if was != now:
            found.append(f"{setting.name} is {_said(now)} instead of {_said(was)}")
    return found


def _changed(was: Member, now: Member) -> list[str]:
    found = []
    if was.key != now.key:
        found.append(f"{now.role} {now.name} has another key: whoever holds that is {now.name}, with all it has stored")
    if was.address != now.address:
        found.append(f"{now.role} {now.name} is at {now.address} instead of {was.address}")
    if was.listen != now.listen:
        found.append(
            f"{now.role} {now.name} listens at {now.listen or now.address} instead of {was.listen or was.address}"
        )
    if was.data_port != now.data_port:
        ports = [{None: "a free one", 0: "none"}.get(port, port) for port in (now.data_port, was.data_port)]
        found.append(f"the data port of {now.role} {now.name} is {ports[0]} instead of {ports[1]}, from its next start")
    return found


def _said(setting: object) -> object:
    return (", ".join(setting) or "(all servers)") if isinstance(setting, tuple) else setting


@dataclass(frozen=True)
class Losses:
    """What a change costs; ``models`` None: not known here."""

    circle: bool
    """Other servers: nothing that is stored is of use among them."""
    stock: int | None
    """Items of preprocessing that go; None if not known how many."""
    models: tuple[SecretSeen, ...] | None
    """That nobody can use until they are uploaded again, or their owner comes back."""
    restarts: tuple[str, ...]
    """Servers that their operators have to start anew, with another key or at another address."""
    anew: bool
    """All servers begin anew in their processes: runs in progress fail."""

    @property
    def nothing(self) -> bool:
        """Whether all that is stored and prepared stays."""
        return not (self.circle or self.stock or self.models or self.anew)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "nothing": self.nothing,
            "models": None if self.models is None else [msgspec.to_builtins(model) for model in self.models],
            "all_models": self.circle,
            "stock": self.stock,
            "servers_to_restart": list(self.restarts),
            "runs": self.anew,
        }

    def sentences(self, gone: Iterable[str]) -> list[str]:
        """What it means; ``gone`` are members that are not listed any more."""
        said = []
        by_owner: dict[str, list[str]] = {}
        for model in self.models or ():
            by_owner.setdefault(model.owner, []).append(model.name)
        for owner, names in sorted(by_owner.items()):
            listed = ", ".join(sorted(names))
            if owner in gone:
                said.append(f"nobody can use {listed} of {owner} any more, unless {owner} comes back")
            else:
                said.append(f"{owner} has to upload again: {listed}")
        if self.circle and self.models is None:
            said.append("every model and data set has to be uploaded again, by its owner")
        if self.stock is None:
            said.append("all preprocessing in stock is destroyed: have it dealt again (tessera deal)")
        elif self.stock:
            said.append(f"{self.stock} items of preprocessing in stock are destroyed: deal again (tessera deal)")
        if self.anew:
            said.append("runs in progress fail, and servers begin anew in their processes")
        said += [f"{name} has to be started anew by its operator (docs/cluster.md)" for name in self.restarts]
        if self.nothing:
            said.insert(0, "nothing has to be uploaded or dealt again")
        return said


def losses(
    former: Cluster, new: Cluster, models: Sequence[SecretSeen] | None, stock: int | None, *, smooth: bool
) -> Losses:
    """Of going from one to the other; ``models`` and ``stock`` are all there are, None if that is not known.

    ``new`` is a succession's, whose members know who they are.
    """
    circle = former.circle != new.circle
    clients = {client.name for client in new.clients}
    lost = None if models is None else tuple(m for m in models if circle or m.owner not in clients)
    before = {server.name: server for server in former.servers}
    restarts = [s.name for s in new.servers if s.name not in before or _place(before[s.name]) != _place(s)]
    return Losses(
        circle=circle,
        stock=stock if former.bond != new.bond else 0,
        models=lost,
        restarts=tuple(restarts),
        anew=not smooth,
    )


def _place(server: Member) -> tuple[str, str | None]:
    return server.key, server.address
