"""Training jobs as a server keeps them: in its data folder, and not too many.

A job stays for its client to see what became of it, until the order holds no longer, or the client has begun
`MOST_OF_A_CLIENT` others since.  One that may go on stays whatever comes: what a party has forgotten, it could be told
to begin again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from mpc.errors import NotPermitted, ProgramError, ServerBusy
from parties.members.cluster import Cluster
from parties.messages.failures import Fault
from parties.messages.jobs import JobOrder, State, job_of, run_of
from parties.messages.requests import Signed
from parties.stored.job_tables import JobRow, JobTables

MOST_OF_A_CLIENT = 32


class HeldJob:
    """A job that a server knows; ``state`` and ``begun`` are those on its disk."""

    def __init__(self, job: str, row: JobRow, order: JobOrder) -> None:
        self.job, self.signed, self.order = job, row.order, order
        self.begun, self.state, self.fault = row.begun, row.state, row.fault

    def __repr__(self) -> str:
        return f"<job {self.job[:8]} of {self.order.client}, {self.state}>"

    @property
    def row(self) -> JobRow:
        """As it is written."""
        return JobRow(self.signed, self.begun, self.state, self.fault)

    def may_go_on_from(self, version: str) -> bool:
        """Whether a run of it could begin with that version."""
        if self.state is not State.GOING or self.order.until < time.time():
            return False
        return version == self.order.start or any(version == run_of(self.job, i) for i in range(self.begun))


class JobBook:
    """All jobs at one server.  Methods that say so block, on the disk, and raise VaultError.

    ``in_use`` says which version a slot stands for, or "".
    """

    def __init__(
        self, server: str, tables: JobTables, cluster: Callable[[], Cluster], in_use: Callable[[str], str]
    ) -> None:
        self._server, self._in_use = server, in_use
        self._cluster = cluster
        self.tables = tables
        self.held: dict[str, HeldJob] = {}
        """All there are, by name."""
        self._writing = threading.Lock()
        for job, row in tables.all():
            try:
                self.held[job] = HeldJob(job, row, JobOrder.read(row.order, cluster()))
            except ProgramError:
                # Its client has another key by now, or is none.
                tables.drop(job)

    def of(self, client: str, job: str) -> HeldJob | None:
        """That client's job of that name."""
        held = self.held.get(job)
        return held if held is not None and held.order.client == client else None

    def add(self, signed: Signed, order: JobOrder, programs: Sequence[bytes] = ()) -> HeldJob:
        """Keep an order, which may be there.  Blocks.  Raises ServerBusy for too many of its client's."""
        job = job_of(signed)
        with self._writing:
            held = self.held.get(job)
            if held is None:
                self._make_room(order.client)
                held = HeldJob(job, JobRow(signed), order)
                self.tables.write(job, held.row, programs)
                self.held[job] = held
        return held

    def begin(self, held: HeldJob, serial: int) -> None:
        """From now on that run of the job has begun, whatever becomes of it.  Blocks.

        Raises NotPermitted for one that has been stopped, ProgramError for a run that has begun, or is one too many.
        """
        with self._writing:
            self.check(held, serial)
            held.begun = serial + 1
            self.tables.write(held.job, held.row)

    @staticmethod
    def check(held: HeldJob, serial: int) -> None:
        """Whether that run may begin.  Raises as ``begin``."""
        if held.state is not State.GOING:
            raise NotPermitted("the job was stopped by its client")
        if not held.begun <= serial < held.order.most:
            raise ProgramError(f"run {serial} of a job has begun, or is one of too many")

    def end(self, held: HeldJob, state: State, fault: Fault | None = None) -> None:
        """It does not go on.  Blocks."""
        with self._writing:
            if held.state is State.GOING:
                held.state, held.fault = state, fault
                self.tables.write(held.job, held.row)

    def _make_room(self, client: str) -> None:
        own = [held for held in self.held.values() if held.order.client == client]
        over = [held for held in own if not held.may_go_on_from(self._in_use(held.order.slot))]
        if len(own) - len(over) >= MOST_OF_A_CLIENT:
            raise ServerBusy(
                self._server,
                f"{client} has {MOST_OF_A_CLIENT} trainings that may go on: stop one (tessera jobs --stop NAME)",
            )
        for held in sorted(over, key=lambda held: held.order.when)[: len(own) + 1 - MOST_OF_A_CLIENT]:
            self.tables.drop(held.job)
            del self.held[held.job]
