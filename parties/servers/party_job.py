"""What a party knows of one run."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from mpc.errors import PeerLost, ProgramError, RunExpired, TesseraError
from mpc.program import Program
from parties.members.cluster import Cluster, Member
from parties.messages.runs import Dealt, Disputed, Opening, Placed
from parties.messages.stock import Agreed
from parties.servers.engine import PreparedRun
from parties.servers.governor import Charge
from parties.servers.job import Job
from parties.servers.placing import PlacedRun
from parties.servers.testimony import Testimony
from parties.stock.collecting import Collecting
from parties.tally import Sent, Tally
from protocols.readings.mac_check import Round
from protocols.readings.party import Exchange, PartyRun

_CHECK_BYTES = 4096
"""More than any message of the MAC check has beside what it opens."""


class Said(NamedTuple):
    """An opening of another party."""

    message: Opening
    payload: Sequence[memoryview]


class Heard(NamedTuple):
    """What another party has sent in a round."""

    peer: str
    message: Opening
    vectors: Round


class PartyJob(Job):
    """One run at this party."""

    def __init__(self, run: str, on_behalf: str) -> None:
        super().__init__(run, on_behalf)
        self.dealt: tuple[Dealt, Sequence[memoryview]] | None = None
        """The dealer's message; its payload until it is expanded."""
        self.dealt_charges: list[Charge] = []
        """Memory for what is dealt, until the run's own is set aside."""
        self.dealt_parts = 0
        """Parts of the program for which the dealer has sent something."""
        self.dealt_later, self.dealing_seconds = Sent(), 0.0
        """What came after the first, and how long it took to deal."""
        self.to_prepare: deque[Sequence[memoryview]] = deque()
        """What was dealt for the parts that are to be prepared next."""
        self.collecting: Collecting | None = None
        """From where these come, if they do not come with the dealer's messages, and no worker computes the run."""
        self.shelved = False
        """What was dealt for it ahead of time lies with a worker."""
        self.preparing = False
        """A thread prepares one."""
        self.told = 0
        """Depths that have been evaluated, as the dealer knows."""
        self.party_run: PartyRun | None = None
        self.placed: PlacedRun | None = None
        """Instead of that, if a worker computes it."""
        self.places: dict[int, Placed] = {}
        """Which workers the other parties have it on, by index."""
        self.meeting = self.met = False
        """Our worker has been told of these; its links to them stand."""
        self.prepare_seconds = 0.0
        self.soon = False
        """The client's inputs come as soon as this party can begin."""
        self.agreed: dict[int, Agreed] = {}
        """What the other parties use for this run, by index."""
        self.ready = False
        self.exchange: Exchange | None = None
        self.begun = False
        """Whether the first step has been taken."""
        self.round = 0
        self.outgoing: Round = []
        """What this party has sent in the round that is open: the others send as much."""
        self.waiting = False
        self.busy = False
        """A thread computes what nobody waits for, and no step can be taken beside it."""
        self.openings: dict[int, dict[int, Said]] = {}
        self.sent_offline = Tally()
        self.sent_online = Tally()
        """What this party has sent for the run, by receiver."""
        self.online_at = 0.0
        """When the inputs came, by the clock of ``sent_at``."""
        self.wait_seconds = 0.0
        self.sent_at = 0.0
        self.long = False
        """Whether rounds take long, one of them or all: known once it is online."""
        self.low_latency = contextlib.ExitStack()
        self.listening = False
        """Whether messages are waited for closely: ``low_latency`` is entered."""
        self.testimony: Testimony | None = None
        """What is said of the run under signatures."""
        self.disputes: dict[str, Disputed] = {}
        """What the others have heard, by party, if it is disputed."""
        self.disputed = False
        """Whether this party has said what it has heard."""

    @property
    def program(self) -> Program | None:
        """Once it is known."""
        return None if self.bound is None else self.bound.program

    @property
    def prepared_run(self) -> PreparedRun | None:
        """Once there is one, wherever."""
        return self.party_run or self.placed

    @property
    def most_opened(self) -> int:
        """Bytes that another party opens in one round, at most: more than all that the program has, with MACs."""
        return 0 if self.program is None else 16 * self.program.elements + _CHECK_BYTES

    @property
    def assigned(self) -> Dealt:
        """What the dealer says of its randomness."""
        if self.dealt is None:
            raise ProgramError("nothing has been dealt for this run")
        return self.dealt[0]

    def overdue(self, cluster: Cluster, me: Member) -> TesseraError:
        """Who keeps the run waiting."""
        peers = [party for party in cluster.parties if party != me]
        seconds = f"{cluster.settings.round_timeout:g} s"
        if self.disputed:
            silent = next((peer.name for peer in peers if peer.name not in self.disputes), me.name)
            return PeerLost(silent, f"did not say within {seconds} what it was sent, when all were not sent the same")
        if self.exchange is not None and not self.begun:
            return self._unprovided(cluster, seconds)
        if self.waiting:
            there = self.openings.get(self.round, {})
            missing = next((p for p in peers if p.index not in there), None)
            if missing is None:
                return self._unprovided(cluster, seconds)
            return PeerLost(missing.name, f"sent no opening of round {self.round} within {seconds}")
        if self.ready:
            patience = cluster.settings.prepared_timeout
            return RunExpired(f"the prepared run was given no inputs within prepared_timeout ({patience:g} s)")
        if self.client is None:
            return TesseraError(f"no client announced this run within {seconds}")
        if self.placed is not None and not self.met:
            silent = next((p.name for p in peers if p.index not in self.places), me.name)
            return PeerLost(silent, f"had no worker that took part in a run within {seconds}: are all parties on such?")
        if self.prepared_run is not None and not self.assigned.number:
            return self._unprovided(cluster, seconds)
        if self.prepared_run is not None:
            silent = next((p.name for p in peers if p.index not in self.agreed), me.name)
            return PeerLost(silent, f"did not say which preprocessing it uses within {seconds}")
        return PeerLost(cluster.dealer.name, f"dealt nothing within {seconds}")

    def _unprovided(self, cluster: Cluster, seconds: str) -> TesseraError:
        """It waits for no other party."""
        run = self.prepared_run
        if run is not None and not self.preparing and (not run.provided or not self.ready):
            return PeerLost(cluster.dealer.name, "dealt nothing more for a run in time")
        return TesseraError(f"this party takes longer than round_timeout ({seconds}) for one step: raise it")
