"""What clusters of one's own have in common, whether their servers are processes or live in this one."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from types import TracebackType
from typing import TypeVar

from msgspec.structs import replace

from mpc.errors import UsageError
from mpc.rings import Rings, known_rings
from mpc.security import Security
from parties.members.cluster import Cluster
from parties.members.cluster_file import Settings
from parties.members.keys import KeyPair
from parties.wire.wires import Transport
from protocols.trace.arguments import whole

Self = TypeVar("Self", bound="TrialCluster")


class TrialCluster(abc.ABC):
    """A context manager: a dealer and ``parties`` parties with fresh keys, all in one hand, gone when you are."""

    transport: Transport
    """What its clients reach its servers over."""

    def __init__(
        self, parties: int, *, security: str | None, clients: tuple[str, ...], settings: Settings | None
    ) -> None:
        if whole(parties, "parties") < 2:
            raise UsageError(f"{parties} parties: additive sharing needs at least 2")
        if security is not None and security not in set(Security):
            raise UsageError(f"security {security!r} is not one of {', '.join(Security)}")
        if not clients:
            raise UsageError("a cluster without clients computes nothing: name at least one")
        self.rings: Rings = known_rings()
        """What its clients compute with."""
        self._parties = parties
        self._client_names = clients
        settings = settings or Settings(threads=1)
        self._settings = settings if security is None else replace(settings, security=Security(security))
        self._server_names = ["dealer", *(f"party{i}" for i in range(parties))]
        self.client_keys: dict[str, KeyPair] = {}

    def __enter__(self: Self) -> Self:
        return self.start()

    def start(self: Self) -> Self:
        """Start every server, until ``close``; a ``with`` statement does both.  Raises as entering it does."""
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abc.abstractmethod
    def _start(self) -> None:
        """Until every server listens."""

    @abc.abstractmethod
    def close(self) -> None:
        """End every server and remove what they have written.  Idempotent."""

    @property
    def cluster(self) -> Cluster:
        """What the cluster file says.  Raises UsageError."""
        self._check_running()
        return self._cluster

    def client_key(self, name: str | None = None) -> KeyPair:
        """The keys of a client, by default of the first.  Raises UsageError."""
        self._check_running()
        if name is not None and name not in self.client_keys:
            raise UsageError(f"the cluster has no client called {name!r}: it has {', '.join(self.client_keys)}")
        return self.client_keys[name or self._client_names[0]]

    def _check_running(self) -> None:
        if not self.client_keys:
            raise UsageError("the cluster is not running: use it in a `with` statement, or start() it")

    def _gather(self, addresses: Sequence[str]) -> dict[str, KeyPair]:
        """Fresh keys of all members, whose servers listen at these addresses."""
        keys = {name: KeyPair.generate() for name in [*self._server_names, *self._client_names]}
        (dealer, *parties), names = addresses, self._server_names[1:]
        self._cluster = Cluster.build(
            "local",
            dealer=(dealer, keys["dealer"].public),
            parties=[(name, address, keys[name].public) for name, address in zip(names, parties, strict=True)],
            clients=[(name, keys[name].public) for name in self._client_names],
            settings=self._settings,
        )
        self.client_keys = {name: keys[name] for name in self._client_names}
        return keys
