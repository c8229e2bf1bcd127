"""The online phase of a party's runs: from the inputs on, one step a round, until the outputs leave."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import numpy as np

from mpc.errors import ProgramError, ProtocolViolation
from mpc.program import Program
from mpc.rings import Array, Rings
from mpc.tensor_type import TensorType
from parties.host.counters import Phase
from parties.members.cluster import Cluster, Member
from parties.messages.runs import Inputs, Opening, Outputs
from parties.messages.workers import Finished
from parties.servers.disputes import Disputes
from parties.servers.governor import evaluating_seconds, step_seconds
from parties.servers.party_job import Heard, PartyJob, Said
from parties.servers.preparing_parts import PreparingParts
from parties.servers.rounds import heard, is_long, next_round
from parties.servers.runs import check_sender
from parties.servers.secrets_desk import SecretsDesk
from parties.servers.server import Server
from parties.wire.messages import Buffer, Payload, payload_bytes
from protocols.readings.mac_check import Round

HOP_SECONDS = 3e-3
"""Steps of these that take no longer, of which a deep network has hundreds, are not worth the hop to a thread and back
while nobody else is there to be answered."""

MAX_EARLY_ROUNDS = 2
"""A peer can be ahead of us by one round, never by more."""


class Online:
    """Takes the messages of runs that are ready, and steps through them; ``keep`` of a desk stores what they leave."""

    def __init__(
        self,
        server: Server[PartyJob],
        rings: Rings,
        desk: SecretsDesk,
        parts: PreparingParts,
        note: Callable[[PartyJob, Outputs, Sequence[Buffer]], None],
    ) -> None:
        """``note`` puts down, and blocks, what a run of a training job would have sent its client."""
        self._server, self._rings, self._desk, self._parts, self._note = server, rings, desk, parts, note
        self._follow(server.cluster)
        self.disputes = Disputes(server)
        server.on(Inputs, self._on_inputs)
        server.on(Opening, self._on_opening)
        server.succeeding.whenever(self._follow)

    def _follow(self, cluster: Cluster) -> None:
        self._peers = [party for party in cluster.parties if party.name != self._server.member.name]
        self._servers = frozenset(member.name for member in cluster.members if member.is_server)

    def _on_inputs(self, client: Member, message: Inputs, payload: Payload) -> None:
        job = self._server.jobs.get(message.run)
        if job is None:
            raise ProtocolViolation(client.name, "sent inputs for a run that is not its own")
        check_sender(job.asker, client)
        self.begin(job, client, payload, message)

    def begin(self, job: PartyJob, asker: Member, payload: Payload = [], message: Inputs | None = None) -> None:  # noqa: B006
        """The run, on the inputs of a client's ``message``; of a training job there are none."""
        if job.placed is not None and job.program is not None:
            if not job.ready or job.placed.started:
                raise ProtocolViolation(asker.name, "sent inputs for a run that is not ready for them")
            self._check(job, job.program, asker, payload, message)
            job.online_at = time.perf_counter()
            # Whose turn it is to be heard, the workers know, who see it.
            self._server.clear_deadline(job)
            job.placed.start(b"" if message is None else message.signature, payload)
            return
        run, program = job.party_run, job.program
        if run is None or job.testimony is None or program is None or not job.ready or job.exchange is not None:
            raise ProtocolViolation(asker.name, "sent inputs for a run that is not ready for them")
        types = self._check(job, program, asker, payload, message)
        if message is not None:
            job.testimony.take_inputs(message, payload)
        # Before anything is said of them: who passed on a signature that is none would be blamed for it.
        job.testimony.check_inputs()
        inputs = [self._rings[t.ring].read(buffer, t.shape) for buffer, t in zip(payload, types, strict=True)]
        job.exchange = run.online(inputs)
        job.online_at = time.perf_counter()
        job.long = is_long(program)
        self.go_on(job)

    @staticmethod
    def _check(
        job: PartyJob, program: Program, asker: Member, payload: Payload, message: Inputs | None
    ) -> Sequence[TensorType]:
        """What can be said of inputs without adding them up; their types.  Raises ProtocolViolation."""
        types = [program.nodes[i].type for i in program.supplied]
        if [len(buffer) for buffer in payload] != [t.bytes for t in types]:
            raise ProtocolViolation(asker.name, "sent inputs of the wrong length")
        if message is not None and message.masks != job.assigned.masks:
            # A wrong mask is a wrong input, which no MAC can show.
            raise ProtocolViolation(asker.name, "holds other masks than the dealer made for this run")
        return types

    def finished(self, job: PartyJob, message: Finished, outputs: Payload) -> None:
        """The run's worker has computed the outputs."""
        job.round, job.wait_seconds = message.rounds - 1, message.waited
        job.sent_online.update(message.sent)
        self._finish(job, [np.frombuffer(output, np.uint8) for output in outputs])

    def go_on(self, job: PartyJob) -> None:
        """Take the next step if all is there that it takes."""
        run = job.party_run
        if job.exchange is None or run is None:
            return
        if job.begun:
            self._continue(job)
        elif run.provided:
            job.begun = True
            self._step(job, None)
        else:
            self._server.set_deadline(job, self._patience)

    @property
    def _patience(self) -> float:
        """s that the source is waited for: others wait for us meanwhile, and are to hear why."""
        return self._server.cluster.settings.round_timeout / 2

    def _on_opening(self, peer: Member, message: Opening, payload: Payload) -> None:
        job = self._server.jobs.get(message.run)
        if job is None or not job.ready:
            # No client sends inputs to anyone before all have said that they are ready.
            raise ProtocolViolation(peer.name, "sent an opening of a run that is not ready here")
        if not job.round <= message.round <= job.round + MAX_EARLY_ROUNDS:
            raise ProtocolViolation(peer.name, f"sent an opening of round {message.round} in round {job.round}")
        openings = job.openings.setdefault(message.round, {})
        if peer.index in openings:
            raise ProtocolViolation(peer.name, f"sent two openings in round {message.round}")
        if payload_bytes(payload) > job.most_opened:
            raise ProtocolViolation(peer.name, "sent an opening of more than the run has in all")
        openings[peer.index] = Said(message, payload)
        self._continue(job)

    def _continue(self, job: PartyJob) -> None:
        """Take the next step if everyone's opening of this round is there, and what the step takes is prepared."""
        if job.disputes:
            self.disputes.join(job)
        openings, testimony, run = job.openings.get(job.round, {}), job.testimony, job.party_run
        if not job.waiting or job.busy or job.disputed or testimony is None or len(openings) < len(self._peers):
            return
        if run is None or not run.provided:
            self._server.set_deadline(job, self._patience)
            return
        del job.openings[job.round]
        job.waiting = False
        job.wait_seconds += time.perf_counter() - job.sent_at
        received = [heard(peer, job.round, *openings[peer.index], job.outgoing, testimony) for peer in self._peers]
        job.round += 1
        self._step(job, received)

    def _step(self, job: PartyJob, received: Sequence[Heard] | None) -> None:
        """Compute up to the next round: here if it is quick, in a thread if it is not."""
        exchange, testimony = job.exchange, job.testimony
        if exchange is None or job.program is None or testimony is None:
            raise ProgramError("the run is not online")
        if job.long and self._in_a_thread(job, job.program):
            self._server.clear_deadline(job)
            # Who waits closely for messages hears of the thread only up to a millisecond later.
            job.low_latency.close()
            job.listening = False
            self._server.in_background(
                job,
                lambda: next_round(exchange, testimony, self._peers, job.round, received),
                lambda result, _: self._sent(job, *result),
                workers=self._server.governor.online,
                expected=evaluating_seconds(job.program),
            )
        else:
            started = time.thread_time()
            found = next_round(exchange, testimony, self._peers, job.round, received)
            if job.long:
                self._server.governor.pace.charge(job.on_behalf, time.thread_time() - started)
            self._sent(job, *found)

    def _in_a_thread(self, job: PartyJob, program: Program) -> bool:
        """Whether the next step of a long program is."""
        alone = self._server.governor.pace.alone(job.on_behalf, self._servers)
        return not alone or step_seconds(program, job.round) > HOP_SECONDS

    def _sent(self, job: PartyJob, message: Opening | None, outgoing: Round) -> None:
        self._parts.stepped(job)
        if message is None:
            self._finish(job, outgoing)
            return
        for peer in self._peers:
            job.sent_online.add(peer.name, self._server.endpoint.send(peer.name, message, list(outgoing)))
        job.outgoing = outgoing
        if not job.listening:
            job.low_latency.enter_context(self._server.endpoint.low_latency())
            job.listening = True
        job.waiting = True
        job.sent_at = time.perf_counter()
        self._server.set_deadline(job)
        self._catch_up(job)

    def _catch_up(self, job: PartyJob) -> None:
        """While the round is on its way: what it has not waited for, and what only the MAC check will need."""
        run = job.party_run
        if run is None or (job.long and not self._server.malicious):
            # Without MACs it is too little for a hop to a thread: the next step begins with it.
            self._continue(job)
        elif job.long:
            job.busy = True
            self._server.in_background(
                job, run.catch_up, lambda _, __: self._caught_up(job), workers=self._server.governor.online
            )
        else:
            run.catch_up()
            self._continue(job)

    def _caught_up(self, job: PartyJob) -> None:
        job.busy = False
        self._continue(job)

    def _finish(self, job: PartyJob, outputs: Sequence[Array]) -> None:
        run = job.prepared_run
        if job.client is not None and run is not None:
            job.sent_online.add(job.client.name, sum(output.nbytes for output in outputs))
            report = Outputs(
                run=job.run,
                rounds=job.round + 1,
                offline=job.sent_offline,
                online=job.sent_online,
                compute_seconds=dict(run.seconds),
                wait_seconds=job.wait_seconds,
                dealt=job.dealt_later,
                dealing_seconds=job.dealing_seconds,
            )
            online_seconds = time.perf_counter() - job.online_at
            sent = [np.ascontiguousarray(output) for output in outputs]
            if not job.training:
                self._server.endpoint.send(job.client.name, report, sent)
            self._server.metrics.rounds(report.rounds)
            self._server.metrics.spent(Phase.ONLINE, online_seconds)
            self._server.metrics.spent(Phase.WAITING, job.wait_seconds)
            if job.bound is not None and job.bound.keep:
                # The run is over here, and has passed its check.
                left = run.kept
                before = functools.partial(self._note, job, report, sent) if job.training else None
                self._server.spawn(self._desk.keep(job.client, job.run, job.bound, *left, before))
        self._server.end(job)
