"""A run as its client sees it: masks that the dealer made for it, inputs to send, outputs to open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from mpc import fixed_point
from mpc.cost import COMMITMENT_BYTES, ELEMENT_BYTES, cost
from mpc.errors import ProtocolViolation
from mpc.rings import field
from mpc.rings.field import FieldArray
from mpc.rings.prg import SEED_BYTES, Seed, elements_sum
from mpc.security import Security
from mpc.tensor_type import Shape
from parties.client.conversation import Conversation
from parties.client.report import LayerReport, Phase, RunReport
from parties.messages.bindings import BoundProgram
from parties.messages.runs import ClientMasks, Outputs
from parties.tally import Link, Sent, Tally, total
from parties.wire.events import Delivery
from parties.wire.messages import as_array
from protocols.readings.dealer import digest
from protocols.readings.reveal import masked_shapes, reveal, revealed_shapes

Reals = npt.NDArray[np.float64]


class PreparedRun:
    """A run whose offline phase is done: ``await client.finish(run)`` gives it its inputs.  Good for one use."""

    def __init__(
        self,
        bound: BoundProgram,
        run: str,
        parties: int,
        inputs: Sequence[FieldArray],
        conversation: Conversation,
        *,
        security: Security,
        single: bool,
        client: str,
    ) -> None:
        self.bound = bound
        self.program = bound.program
        self.security = security
        self.run = run
        self.used = False
        self.inputs = list(inputs)
        """Raw values of the program's inputs, in its order: secret, as are the masks."""
        self.input_masks: list[FieldArray] = []
        self.output_masks: list[FieldArray] = []
        """Of what each party will send, in its order (``protocols.readings.reveal``)."""
        self.key_commitments: list[bytes] = []
        """With MACs: the dealer's, to each party's share of the key."""
        self.masks_digest = ""
        self.offline_bytes = 0
        self.offline_seconds = 0.0
        self.dealing_seconds = 0.0
        self.from_stock = False
        self.client = client
        self.sent_offline = Tally()
        self.sent_online = Tally()
        """What this client has sent for the run, by receiver."""
        self.dealer = ""
        self.sent_by_dealer: Mapping[str, Sent] = {}
        """As the dealer says, who dealt for the run."""
        self.conversation = conversation
        self.single = single
        """One output, not a list of them."""
        self._parties = parties

    def __repr__(self) -> str:
        return f"<PreparedRun of {self.program!r}{', used' if self.used else ''}>"

    def take_masks(self, delivery: Delivery) -> None:
        """The dealer's masks for this client.  Raises ProtocolViolation if they are not for this program."""
        message, buffers, dealer = delivery.message, delivery.buffers, delivery.sender.name
        program = self.program
        if not isinstance(message, ClientMasks) or message.program != program.digest:
            raise ProtocolViolation(dealer, "dealt for another program")
        if message.bindings != self.bound.bindings_digest:
            raise ProtocolViolation(dealer, "dealt for other versions, or by other rules")
        supplied, shapes = len(program.inputs), masked_shapes(program, self.security)
        malicious = self.security is Security.MALICIOUS
        if len(buffers) != supplied + len(shapes) + malicious:
            raise ProtocolViolation(dealer, "sent the wrong number of masks")
        for buffer, i in zip(buffers[:supplied], program.inputs, strict=True):
            streams = read_seeds(dealer, buffer, self._parties)
            self.input_masks.append(elements_sum(streams, program.nodes[i].type.shape))
        for buffer, shape in zip(buffers[supplied:], shapes, strict=False):
            self.output_masks.append(read_array(dealer, buffer, shape))
        if malicious:
            joined = bytes(buffers[-1])
            if len(joined) != self._parties * COMMITMENT_BYTES:
                raise ProtocolViolation(dealer, "sent commitments of the wrong length")
            self.key_commitments = [joined[i : i + COMMITMENT_BYTES] for i in range(0, len(joined), COMMITMENT_BYTES)]
            self.masks_digest = digest(buffers)
        self.dealing_seconds = message.seconds
        self.from_stock = message.from_stock
        self.offline_bytes = message.dealt_bytes + sum(map(len, buffers))
        self.dealer, self.sent_by_dealer = dealer, message.sent

    def masked_inputs(self) -> list[FieldArray]:
        """x - a of each input: uniform, whatever x is."""
        pairs = zip(self.inputs, self.input_masks, strict=True)
        return [np.ascontiguousarray(field.subtract(x, mask)) for x, mask in pairs]

    def open_outputs(self, sent: Mapping[str, Delivery]) -> list[Reals]:
        """The outputs, from what each party sent, in order of party.  Raises ProtocolViolation, MacCheckError."""
        shapes = revealed_shapes(self.program, self.security)
        shares = []
        for name, delivery in sent.items():
            if len(delivery.buffers) != len(shapes):
                raise ProtocolViolation(name, "sent the wrong number of outputs")
            shares.append([read_array(name, b, shape) for b, shape in zip(delivery.buffers, shapes, strict=True)])
        outputs = reveal(self.program, self.security, shares, self.output_masks, self.key_commitments)
        types = [self.program.nodes[i].type for i in self.program.outputs]
        return [fixed_point.decode(output, t.fraction_bits) for output, t in zip(outputs, types, strict=True)]

    def report(self, shares: Mapping[str, Delivery], seconds: float) -> RunReport:
        """The bill; ``seconds`` are those of the online phase.  Raises ProtocolViolation: see ``_links``."""
        by_party = {name: d.message for name, d in shares.items() if isinstance(d.message, Outputs)}
        outputs = list(by_party.values())
        online = [total(o.online) for o in outputs]
        dealt = total(self.sent_by_dealer)
        predicted = cost(self.program, self._parties, self.security)
        layers = {
            name: LayerReport(
                layer.rounds,
                layer.opened,
                layer.dealt,
                ELEMENT_BYTES * layer.opened * (self._parties - 1),
                max(o.compute_seconds.get(name, 0.0) for o in outputs),
            )
            for name, layer in predicted.layers.items()
        }
        return RunReport(
            parties=self._parties,
            security=self.security,
            online=Phase(
                max(o.rounds for o in outputs),
                max(sent.messages for sent in online),
                max(sent.payload for sent in online),
                seconds,
            ),
            offline=Phase(0, dealt.messages, self.offline_bytes, self.offline_seconds),
            dealing_seconds=self.dealing_seconds,
            wait_seconds=max(o.wait_seconds for o in outputs),
            layers=layers,
            predicted=predicted,
            from_stock=self.from_stock,
            client=self.client,
            links=self._links(by_party),
        )

    def _links(self, outputs: Mapping[str, Outputs]) -> dict[str, dict[Link, Sent]]:
        """What went over each link in each phase, by what the senders say.

        Raises ProtocolViolation for a word about somebody who has no part in the run.
        """
        offline = {self.client: self.sent_offline, self.dealer: self.sent_by_dealer}
        online: dict[str, Mapping[str, Sent]] = {self.client: self.sent_online}
        members = {self.client, self.dealer, *outputs}
        tables = {
            "offline": {**offline, **{party: o.offline for party, o in outputs.items()}},
            "online": {**online, **{party: o.online for party, o in outputs.items()}},
        }
        for table in tables.values():
            for sender, sent in table.items():
                if not sent.keys() <= members - {sender}:
                    raise ProtocolViolation(sender, "reports messages to somebody who has no part in the run")
        return {
            phase: {(sender, receiver): n for sender, sent in table.items() for receiver, n in sent.items()}
            for phase, table in tables.items()
        }


def read_seeds(sender: str, buffer: memoryview, count: int) -> tuple[Seed, ...]:
    """``count`` seeds, joined.  Raises ProtocolViolation."""
    data = bytes(buffer)
    if len(data) != count * SEED_BYTES:
        raise ProtocolViolation(sender, "sent seeds of the wrong length")
    return tuple(Seed(data[i : i + SEED_BYTES]) for i in range(0, len(data), SEED_BYTES))


def read_array(sender: str, buffer: memoryview, shape: Shape) -> FieldArray:
    """A payload frame as field elements.  Raises ProtocolViolation."""
    if len(buffer) != 8 * prod(shape):
        raise ProtocolViolation(sender, "sent an array of the wrong length")
    array = as_array(buffer)
    if not field.is_reduced(array):
        raise ProtocolViolation(sender, "sent numbers outside the field")
    return array.reshape(shape)
