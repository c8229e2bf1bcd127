"""A run as its client sees it: masks that the dealer made for it, inputs to send, outputs to open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mpc import fixed_point
from mpc.cost import Cost, cost
from mpc.errors import ProgramError, ProtocolViolation
from mpc.lazy import lazy
from mpc.rings import FIELD, Array, Buffer, Rings
from mpc.security import Security
from parties.client.account import Account
from parties.client.conversation import Conversation
from parties.messages.bindings import BoundProgram
from parties.messages.evidence import InputsSaid, Said, digest_of
from parties.messages.runs import ClientMasks, Inputs
from parties.wire.events import Delivery
from protocols.randomness.dealt import read
from protocols.randomness.source import ClientRandomness, RandomnessSource
from protocols.readings.inputs import masked_inputs
from protocols.readings.reveal import reveal, revealed_parts

Reals = npt.NDArray[np.float64]


class PreparedRun:
    """A run whose offline phase is done: ``await client.finish(run)`` gives it its inputs.  Good for one use."""

    def __init__(
        self,
        bound: BoundProgram,
        run: str,
        parties: int,
        inputs: Sequence[Array],
        conversation: Conversation,
        *,
        security: Security,
        single: bool,
        client: str,
        rings: Rings,
        sign: Callable[[Said], bytes],
        terms: str,
    ) -> None:
        """``sign``: the client's signature; ``terms``: of the cluster, as it is while this is prepared."""
        self.bound = bound
        self.program = bound.program
        self.security = security
        self.run = run
        self.used = False
        self.in_range: bool | None = None
        """Once it is finished: whether all values were where they are taken to be; None where all must be, or nobody
        watches.
        """
        self.unanswered: tuple[int, ...] = ()
        """And for which samples, by their places, there is no answer then; 0 for the whole, where it has no such."""
        self.answered = True
        """Whether there is an answer at all."""
        self.inputs = list(inputs)
        """Of the program, in its order: secret, as are the masks."""
        self.randomness: ClientRandomness | None = None
        """The masks of inputs and outputs, once they have come."""
        self.account = Account(client)
        self.conversation = conversation
        self.single = single
        """One output, not a list of them."""
        self._parties = parties
        self._rings = rings
        self._sign, self._terms = sign, terms

    def __repr__(self) -> str:
        return f"<PreparedRun of {self.program!r}{', used' if self.used else ''}>"

    @lazy
    def predicted(self) -> Cost:
        """What it costs, as is known before; of a long program that takes long to find out."""
        return cost(self.program, self._parties, self.security)

    def take_masks(self, delivery: Delivery, source: RandomnessSource) -> None:
        """What the source made for this client.  Raises ProtocolViolation if it is not for this program."""
        message, buffers, dealer = delivery.message, delivery.buffers, delivery.sender.name
        if not isinstance(message, ClientMasks) or message.program != self.program.digest:
            raise ProtocolViolation(dealer, "dealt for another program")
        if message.bindings != self.bound.bindings_digest:
            raise ProtocolViolation(dealer, "dealt for other versions, or by other rules")
        try:
            self.randomness = source.for_client(self.program, self.security, self._parties, buffers)
        except ProgramError as error:
            raise ProtocolViolation(dealer, f"sent masks that do not go with the program: {error}") from None
        self.account.note_dealing(dealer, message, sum(map(len, buffers)))

    def _dealt(self) -> ClientRandomness:
        if self.randomness is None:
            raise ProgramError("no randomness has been made for this run")
        return self.randomness

    @property
    def input_masks(self) -> list[Buffer]:
        """Secret, as are the inputs: nobody else knows both."""
        return self._buffers(self._dealt().input_masks)

    @property
    def masks_digest(self) -> str:
        """With MACs: what the parties compare with what was made for this client."""
        return self._dealt().digest

    def masked_inputs(self) -> list[Buffer]:
        """x - a of each input: uniform, whatever x is; as they are sent."""
        return self._buffers(masked_inputs(self.program, self.inputs, self._dealt(), self._rings))

    def _buffers(self, arrays: Sequence[Array]) -> list[Buffer]:
        """Of the rings of what is sent."""
        types = (self.program.nodes[i].type for i in self.program.supplied)
        return [self._rings[t.ring].buffer(array) for t, array in zip(types, arrays, strict=True)]

    def inputs_message(self, masked: Sequence[Buffer]) -> Inputs:
        """What goes before them, to every party alike: signed, so that no other inputs can pass for this client's."""
        said = InputsSaid(
            cluster=self._terms,
            run=self.run,
            program=self.program.digest,
            bindings=self.bound.bindings_digest,
            masked=digest_of(masked),
        )
        return Inputs(run=self.run, masks=self.masks_digest, signature=self._sign(said))

    def open_outputs(self, sent: Mapping[str, Delivery]) -> list[Reals]:
        """The outputs, from what each party sent, in order of party; of what there is no answer to, NaN.

        Raises ProtocolViolation, MacCheckError.
        """
        parts, rings = revealed_parts(self.program, self.security), self._rings
        shares = []
        for name, delivery in sent.items():
            if len(delivery.buffers) != len(parts):
                raise ProtocolViolation(name, "sent the wrong number of outputs")
            try:
                shares.append([read(rings, b, p, "an output") for b, p in zip(delivery.buffers, parts, strict=True)])
            except ProgramError as error:
                raise ProtocolViolation(name, f"sent {error}") from None
        dealt = self._dealt()
        outputs = reveal(self.program, self.security, shares, dealt.output_masks, dealt.key_commitments, rings)
        left = np.zeros(1, bool)
        if self.program.flagged:
            left = rings[FIELD].to_signed(outputs.pop()) != 0
            self.in_range = not left.any()
        values = []
        for i, y in zip(self.program.results, outputs, strict=True):
            node = self.program.nodes[i]
            real = fixed_point.decode(y, node.type.fraction_bits, rings[node.type.ring])
            if node.operation.gates:
                self.unanswered, self.answered = tuple(np.flatnonzero(left).tolist()), not left.all()
                real = np.where(left.reshape(-1, *(1,) * (real.ndim - 1)) if real.ndim else left[0], np.nan, real)
            values.append(real)
        return values
