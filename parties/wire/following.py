"""An endpoint's part in going from one cluster file to the next: who is dropped, who is new, and who is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from mpc.errors import PeerLost, VersionMismatch
from parties.members.cluster import Cluster, Member, Role
from parties.members.succession import Succession, is_smooth
from parties.wire.events import ClusterChanged, Event, PeerDown
from parties.wire.links import Link
from parties.wire.liveness import Liveness
from parties.wire.messages import Hello, Message, Succeeded
from parties.wire.receiver import Receiver
from parties.wire.wires import Wires


class Following(ABC):
    """An `Endpoint`, as far as it goes by a succession of cluster files."""

    _links: dict[str, Link]
    _liveness: Liveness
    _receiver: Receiver
    _wires: Wires
    _running: bool

    def __init__(self, cluster: Cluster, me: Member) -> None:
        self.cluster = cluster
        self.me = me
        self.on_newer: Callable[[Succession], None] = self._go_on_by_ourselves
        """Takes a succession of cluster files that is newer than ours: to make it ours with ``go_on``, or raise
        PeerError."""
        self.newest = Succession.begin(cluster)
        """The newest succession that we have been shown, whether or not we could go on to it."""

    @abstractmethod
    def _transmit(self, link: Link, message: Message, payload: Sequence[bytes] = ()) -> bool: ...

    @abstractmethod
    def _emit(self, event: Event) -> None: ...

    @property
    def succession(self) -> Succession:
        """Of cluster files, the last of which is ours."""
        return self._receiver.succession

    @succession.setter
    def succession(self, succession: Succession) -> None:
        """Before the start: what is known of how it came to be."""
        self.newest = self._receiver.succession = succession

    def go_on(self, succession: Succession) -> None:
        """From now on that succession's last file is ours; runs and links with those who stay the same go on.

        A member that has gone, or has another key or address, is cut off here; servers tell everybody who is connected.
        """
        self.cluster = new = succession.cluster
        self.me = self.me if self.me.role is Role.OPERATOR else new.member(self.me.name)
        self.newest = self._receiver.succession = succession
        peers = {peer.name: peer for peer in peers_of(new, self.me)}
        dropped = [link for name, link in self._links.items() if not stays(link.peer, peers.get(name))]
        for link in dropped:
            self._tell(link, succession)
            del self._links[link.peer.name]
            link.lose(self._liveness.now())
            link.forget()
            gone = f"is no member any more, or has another key or address, by cluster file {new.number}"
            self._emit(PeerDown(link.peer, PeerLost(link.peer.name, gone)))
        for name, peer in peers.items():
            self._links.setdefault(name, Link(peer)).peer = peer
        self._wires.go_on(new, dropped)
        self._receiver.compare_again(self._links.values())
        for link in self.tell(succession):
            self._transmit(link, Hello(*self._receiver.greeting))

    def tell(self, succession: Succession) -> list[Link]:
        """Everybody who is connected, if we are a server, of what has followed the file that it has; whom that was."""
        return [link for link in self._links.values() if self._tell(link, succession)]

    def give_way(self, succession: Succession) -> None:
        """Whoever is connected, and who comes until we have ended, is told of what another takes our place with."""
        self._receiver.successor = succession
        self.tell(succession)

    def _tell(self, link: Link, succession: Succession) -> bool:
        if not (self.me.is_server and self._running) or link.greeting is None:
            return False
        steps = succession.since(link.greeting.cluster_fingerprint)
        return bool(steps) and self._transmit(link, Succeeded(), steps)

    def end_for_newer(self) -> None:
        """What `newest` says cannot be gone on to here: whoever is in ``receive`` hears of it."""
        self._emit(ClusterChanged(self.newest.cluster))

    def _newer(self, link: Link, succession: Succession) -> None:
        self.newest = succession
        try:
            self.on_newer(succession)
        except VersionMismatch as error:
            raise VersionMismatch(link.peer.name, error.reason) from None

    def _go_on_by_ourselves(self, succession: Succession) -> None:
        new = succession.cluster
        if self.me.role is Role.OPERATOR or (new.by_key(self.me.key) is not None and is_smooth(self.cluster, new)):
            self.go_on(succession)
            return
        raise self._cannot_go_on()

    def _cannot_go_on(self) -> VersionMismatch:
        return VersionMismatch(
            self.me.name,
            f"goes by cluster file {self.newest.cluster.number}, which has other servers or settings than our number"
            f" {self.cluster.number}, or not our key: begin again with the newest (`tessera cluster show --out FILE`)",
        )


def peers_of(cluster: Cluster, me: Member) -> list[Member]:
    """Whom a member has links with: a server also with whoever operates it, and an operator with its server alone."""
    if me.role is Role.OPERATOR:
        return [server for server in cluster.servers if server.name == me.name]
    if not me.is_server:
        return list(cluster.servers)
    return [*(member for member in cluster.members if member.name != me.name), operator(me)]


def operator(server: Member) -> Member:
    """Whoever holds that server's key beside it."""
    return Member(server.name, Role.OPERATOR, 0, None, server.key)


def stays(peer: Member, now: Member | None) -> bool:
    return now is not None and (peer.key, peer.address) == (now.key, now.address)
