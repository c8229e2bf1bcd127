"""Runs: the part of ``AsyncClient`` that shares secrets, and has programs dealt for and run on them."""

from __future__ import annotations

import contextlib
import secrets
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy.typing as npt

from mpc import fixed_point
from mpc.cost import online_rounds
from mpc.errors import (
    LimitReached,
    MacCheckError,
    MaterialError,
    NoAnswer,
    NotPermitted,
    PeerLost,
    PeerUnavailable,
    ProtocolViolation,
    UsageError,
)
from mpc.operation import Input
from mpc.rings import Array, Buffer
from parties.client.deciding import Deciding
from parties.client.prepared import PreparedRun, Reals
from parties.client.report import NO_ANSWER, RunReport, StockReport
from parties.client.sizes import check_messages, check_stock, check_values
from parties.client.training import Training, check_ahead
from parties.client.writing import Results, Written, beside, is_long, moves_much
from parties.messages.bindings import OWNER, BoundProgram
from parties.messages.failures import fault_of
from parties.messages.runs import ClientMasks, Failed, Inputs, Outputs, Prepare, Ready, Release
from parties.messages.stock import Stock, StockProgress
from parties.messages.uploads import VersionDropped, VersionReady
from parties.wire.messages import Message
from protocols.randomness.source import RandomnessSource
from protocols.trace.arguments import declared, lost_to_whole
from protocols.trace.mathematics import Node, Secret
from protocols.trace.random import Random
from protocols.trace.secret_tensor import SecretTensor, leaf

DEFAULT_BOUND = 64.0
"""Values shared without a declared range lie in [-64, 64]."""

Result = TypeVar("Result")

# Times that a run may meet spent preprocessing before that is the caller's failure.
_RETRIES = 2


class Running(Deciding):
    """A client of a cluster, as far as runs go."""

    _source: RandomnessSource
    _secrets: weakref.WeakKeyDictionary[Node, Array]
    """Raw values of what this client has shared, by the leaves of its expressions."""
    last_run: RunReport | None
    """The bill of the last run that was revealed."""

    random = Random()
    """Secret random tensors, which nobody knows: expressions, like what is shared."""

    def share(
        self,
        values: npt.ArrayLike,
        *,
        fraction_bits: int | None = None,
        low: float = -DEFAULT_BOUND,
        high: float = DEFAULT_BOUND,
        name: str = "value",
    ) -> SecretTensor:
        """This client's secret as an expression.  Nothing is sent until a result that depends on it is revealed.

        ``[low, high]`` is public, and the tighter it is the more precise and cheaper what is computed from it: unless
        ``fraction_bits`` says, there are 16 of them, and more where all values are below 1.
        Parties check it where anything stored is read: a client that sends others is named (InputOutOfRange), and gets
        no result.

        Raises EncodingError, naming the place, for a value that is not finite or not in the range; RangeError,
        UnsupportedError for a range or bits that are none; UsageError for more than fits one message.
        """
        low, high, bits = declared(low, high, fraction_bits)
        check_values(self.cluster, values, name)
        raw = fixed_point.encode(values, bits, low, high, name=name, field=self._field)
        secret = leaf(Input(raw.shape, bits, low, high), lost=lost_to_whole(values, bits))
        self._secrets[secret.node] = raw
        return secret

    async def prepare(self, result: SecretTensor | Sequence[SecretTensor], *, soon: bool = False) -> PreparedRun:
        """The offline phase of a run, for ``finish``: dealing, and whatever does not depend on the inputs.

        What was dealt ahead of time (``stock``) is used first.  The parties keep what is for this run until it is
        finished, released, or this client has gone; of a deep network no more than `mpc.schedule.AHEAD` bytes each, and
        the rest of its offline phase goes on beside the online phase.  ``soon``: so does all that need not be over when
        the online phase begins.
        """
        written = await self._write(result)
        await self._board.reach(self._servers)
        return await self._prepare(written, single=isinstance(result, SecretTensor), soon=soon)

    async def _prepare(self, written: Written, *, single: bool, keep: str = "", soon: bool = False) -> PreparedRun:
        """Raises NotPermitted, or whatever stopped it."""
        inputs = self._inputs_of(written)

        async def prepare(bound: BoundProgram) -> PreparedRun:
            for _ in range(_RETRIES):
                # A ledger may have seen used what the dealer takes for fresh.  Nothing was sent; the dealer skips it.
                with contextlib.suppress(MaterialError):
                    return await self._prepare_once(bound, inputs, single=single, soon=soon)
            return await self._prepare_once(bound, inputs, single=single, soon=soon)

        return await self._permitted(written, prepare, keep)

    async def _permitted(
        self, written: Written, attempt: Callable[[BoundProgram], Awaitable[Result]], keep: str = ""
    ) -> Result:
        """``attempt`` with what is bound; again if that is refused, and there are other rules for it by now."""
        program = written.program
        await beside(lambda: check_messages(self.cluster, program), long=is_long(program))
        bound = self._slots.bind(*written, keep)
        while True:
            try:
                return await attempt(bound)
            except (NotPermitted, LimitReached) as error:
                if isinstance(error, LimitReached):
                    self._slots.use_up(bound)
                else:
                    await self._ask_again(bound)
                again = self._slots.bind(*written, keep)
                if again == bound:
                    raise
                bound = again

    async def _ask_again(self, bound: BoundProgram) -> None:
        """What is allowed now on others' secrets that the program reads."""
        for binding in bound.bindings:
            if binding.rule != OWNER or self._slots.is_joint(binding.slot):
                with contextlib.suppress(NotPermitted, UsageError):
                    await self._find(binding.slot)

    async def _prepare_once(
        self, bound: BoundProgram, inputs: Sequence[Array], *, single: bool, soon: bool
    ) -> PreparedRun:
        started = time.perf_counter()
        run, security = secrets.token_hex(16), self.cluster.settings.security
        program = bound.program
        await beside(lambda: self._source.check(program, security), long=is_long(program))
        conversation = self._board.begin(run, self._servers)
        prepared = PreparedRun(
            bound,
            run,
            len(self._parties),
            inputs,
            conversation,
            security=security,
            single=single,
            client=self.member.name,
            rings=self._source.rings,
            sign=self._sign,
            terms=self.cluster.terms,
        )
        try:
            with self._board.watching(self._servers):
                data, dealer = program.encode(), self.cluster.dealer.name
                message = Prepare(run=run, bindings=bound.bindings, keep=bound.keep, soon=soon)
                for server in self._servers:
                    prepared.account.sent_offline.add(server, self._board.send(server, message, [data]))
                # Now that the servers are at it: nobody waits for this.
                await beside(lambda: prepared.predicted, long=is_long(program))
                got = await conversation.take_all({ClientMasks: [dealer], Ready: self._parties}, self._patience)
                masks = got[ClientMasks][dealer]
                await beside(lambda: prepared.take_masks(masks, self._source), long=moves_much(program))
        except BaseException:
            self._abandon(prepared)
            raise
        if not bound.keep:
            # The dealer has done its part, or who waits for it says so: from now on the run goes on without it here.
            conversation.needs = frozenset(self._parties)
        prepared.account.offline_seconds = time.perf_counter() - started
        return prepared

    async def stock(
        self,
        result: Results | Training,
        count: int,
        *,
        low_water: int = 0,
        progress: Callable[[StockReport], None] | None = None,
    ) -> StockReport:
        """Have ``count`` runs of ``result`` dealt ahead of time, into the ledgers of the parties.

        Runs of the same program on the same versions (any values of its inputs) then use them, one each, and need no
        dealing of their own; of a mapping, those runs are of ``keep``.  Of a training it is for ``count`` checkpoints
        in a row, from the one that there is, or behind what is in stock for it; when a run of it fails, what is left is
        discarded, and the rest is dealt for on demand.
        With a ``low_water`` mark, which trainings have none of, the dealer deals again, up to ``count``, when fewer are
        left.  ``progress`` is called after each.  Raises UsageError, or whatever stopped the dealing (PeerError,
        ProgramError, ServerBusy while a run of that training is under way, ...).
        """
        check_stock(count, low_water)
        keep = ""
        if isinstance(result, Training):
            check_ahead(result, count, low_water)
            training, keep = result, result.model.name
            result = await beside(lambda: training.kept, long=True)
        written = await self._write(result)
        await self._board.reach(self._servers)
        dealer = self.cluster.dealer.name

        async def deal(bound: BoundProgram) -> StockReport:
            request = secrets.token_hex(16)
            with self._board.conversation(request, [dealer]) as conversation:
                message = Stock(request=request, count=count, low_water=low_water, bindings=bound.bindings, chain=keep)
                self._board.send(dealer, message, [bound.program.encode()])
                while True:
                    got = (await conversation.take(StockProgress, [dealer], self._patience))[dealer].message
                    if not isinstance(got, StockProgress):
                        raise ProtocolViolation(dealer, "sent no progress")
                    digest = bound.chain_digest if keep else bound.digest
                    report = StockReport(digest, got.done, got.stock, got.sent_bytes, got.seconds)
                    if progress is not None:
                        progress(report)
                    if got.done >= count:
                        return report

        return await self._permitted(written, deal, keep)

    async def finish(self, prepared: PreparedRun) -> Reals | list[Reals]:
        """The online phase: send the masked inputs, await the outputs; what ``reveal`` would return.

        Raises NoAnswer as it does.
        """
        if prepared.used:
            raise UsageError("this run has been used: its masks are good for one run; prepare another")
        if not self._board.holds(prepared.run, prepared.conversation):
            raise UsageError("this run was prepared by another client object: finish it with that one")
        prepared.used = True
        much = moves_much(prepared.program)
        rounds = online_rounds(prepared.program, prepared.security)
        expected: dict[type[Message], list[str]] = {Outputs: self._parties}
        if prepared.program.kept:
            expected[VersionReady] = self._parties
        try:
            with self._board.watching(prepared.conversation.needs):
                started = time.perf_counter()
                prepared.conversation.check()
                masked = await beside(prepared.masked_inputs, long=much)
                message = await beside(lambda: prepared.inputs_message(masked), long=much)
                for party in self._parties:
                    prepared.account.sent_online.add(party, self._send_online(party, message, masked))
                # The parties end together: once one has, the others have no more than a round to go.
                whole = self._patience * rounds
                arrived = await prepared.conversation.take_all(expected, self._patience, first=whole)
                shares = {party: arrived[Outputs][party] for party in self._parties}
                results = await beside(lambda: prepared.open_outputs(shares), long=much)
                seconds = time.perf_counter() - started
        except MacCheckError as error:
            # Whether we noticed or were told: servers that are still at it learn the reason.
            self._board.tell(Failed(run=prepared.run, fault=fault_of(error)))
            self._abandon(prepared)
            raise
        except BaseException:
            self._abandon(prepared)
            raise
        self._board.end(prepared.run)
        report = prepared.account.report(prepared.predicted, prepared.security, shares, seconds)
        self.last_run = replace(report, in_range=prepared.in_range, unanswered=prepared.unanswered)
        if not prepared.answered:
            raise NoAnswer(NO_ANSWER)
        return results[0] if prepared.single else results

    async def release(self, prepared: PreparedRun) -> None:
        """Give up a prepared run: the parties forget what was dealt for it.  Idempotent."""
        if not prepared.used:
            self._abandon(prepared)

    def _send_online(self, party: str, message: Inputs, masked: Sequence[Buffer]) -> int:
        try:
            return self._board.send(party, message, masked)
        except PeerUnavailable:
            raise PeerLost(party, "its connection closed after the run was prepared") from None

    def _inputs_of(self, written: Written) -> list[Array]:
        """The raw values of the program's inputs, in its order."""
        inputs = []
        for node in written.leaves:
            if isinstance(node.operation, Secret) and isinstance(node.operation.source, Input):
                raw = self._secrets.get(node)
                if raw is None:
                    raise UsageError("an input was shared by another client object: share it with this one")
                inputs.append(raw)
        return inputs

    def _abandon(self, prepared: PreparedRun) -> None:
        """Nothing of a failed, cancelled or released run is used again, here or at the servers."""
        prepared.used = True
        self._board.end(prepared.run)
        self._board.tell(Release(run=prepared.run))
        if prepared.program.kept:
            self._board.tell(VersionDropped(version=prepared.run))
