"""What every server is made of."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Generic, TypeVar

from mpc.rings import Rings
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.operate.cluster.record import ClusterRecord
from parties.servers.crew import Workforce
from parties.wire.wires import Transport
from protocols.randomness.source import RandomnessSource

SourceT_co = TypeVar("SourceT_co", bound=RandomnessSource, covariant=True)


@dataclass(frozen=True, repr=False)
class Host(Generic[SourceT_co]):
    """Where a server runs: whose it is, what it keeps where, what makes its randomness, and what carries its frames."""

    record: ClusterRecord
    member: Member
    keys: KeyPair
    folder: str | os.PathLike[str]
    source: SourceT_co
    transport: Transport
    workforce: Workforce | None = None
    """Who starts the workers that a party computes on, if it does on such."""

    @property
    def cluster(self) -> Cluster:
        """That the server goes by when it begins."""
        return self.record.succession.cluster

    @property
    def rings(self) -> Rings:
        """What the server computes with: its source's, whose arrays it is given."""
        return self.source.rings
