"""A party's reading of a program: what it prepares offline, what it computes and sends online.

Without input or output of its own: ``online`` is a generator that yields what the party sends to every other party in a
round and is sent what they sent, in order of party.  Whoever drives it (sockets, or a list in a test) moves bytes.

    run = PartyRun(program, party=0, parties=2, seed=seed, corrections=(), stored=store)
    exchange = run.online(masked_inputs)
    outgoing = next(exchange)                 # one buffer per round
    outgoing = exchange.send(received)        # ... until StopIteration, whose value is what the client is sent

Semi-honest, a round is an opening.  Malicious, everything is evaluated a second time, on MAC shares, the first opening
carries a commitment as well, and the rounds of the MAC check come after the last one (``mac_check.py``).
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence

import numpy as np

from mpc.cost import CHECK
from mpc.errors import ProgramError, TesseraError
from mpc.operation import PartyContext, Stored, Value
from mpc.program import Program
from mpc.rings import field
from mpc.rings.field import FieldArray
from mpc.rings.prg import Seed
from mpc.security import Security
from protocols.randomness.streams import Randomness, key_share
from protocols.readings.evaluation import Evaluation
from protocols.readings.mac_check import MacCheck, Rounds, to_words

Exchange = Generator[FieldArray, Sequence[FieldArray], list[FieldArray]]


class UnreducedOpening(TesseraError):  # noqa: N818 - says what came, not that it is an error
    """Another party sent a number outside the field; ``position`` is its place among those received."""

    def __init__(self, position: int) -> None:
        super().__init__("an opening holds a number outside the field")
        self.position = position


class PartyRun:
    """One run at one party.  Made offline, then ``online`` once: masks are used once."""

    def __init__(
        self,
        program: Program,
        *,
        party: int,
        parties: int,
        seed: Seed,
        corrections: Sequence[FieldArray],
        stored: Mapping[tuple[str, str], Value],
        security: Security = Security.SEMI_HONEST,
        session: bytes = b"",
    ) -> None:
        """``corrections`` are the last party's (flat arrays, in the program's order) and empty for the others.

        ``stored``: by slot and tensor, what is bound there.

        ``session`` is what the check's commitments are bound to besides the program: a name of this run that no other
        has, the same at every party.

        Raises ProgramError when the corrections, or ``stored``, do not go with the program.
        """
        self.program = program
        self.seconds: dict[str, float] = defaultdict(float)
        """Time spent computing online, by label."""
        self._parties = parties
        self._used = False
        self._stored = stored
        self._randomness = Randomness(
            program, security, party=party, parties=parties, seed=seed, corrections=corrections
        )
        self._shares = Evaluation(program, PartyContext(party, parties))
        self._shares.prepare(self._stored_value, self._randomness.mask, self._randomness.dealt)
        self._macs: Evaluation | None = None
        self._check: MacCheck | None = None
        if security is Security.MALICIOUS:
            macs = PartyContext(party, parties, unit=key_share(self._randomness.key_stream))
            self._macs = Evaluation(program, macs)
            self._macs.prepare(self._stored_mac, self._randomness.mask_mac, self._randomness.dealt_macs)
            self._check = MacCheck(macs, bytes.fromhex(program.digest) + parties.to_bytes(4, "little") + session)
        self._pending = self._by_depth()
        self._evaluated = 0
        """Depths up to which the shares have been evaluated."""
        self._authenticated = 0
        """Depths up to which the MAC shares have been."""
        self._mac_shares: list[FieldArray] = []
        """By round, shares of the MACs of what was opened."""
        self._masks = self._output_masks()

    # -- offline ---------------------------------------------------------------------------------------------------

    def _stored_value(self, i: int) -> Value:
        operation = self.program.nodes[i].operation
        value = self._stored.get((operation.slot, operation.tensor)) if isinstance(operation, Stored) else None
        if value is None or value.public is None or value.public.shape != self.program.nodes[i].type.shape:
            name = operation.tensor if isinstance(operation, Stored) else "?"
            raise ProgramError(
                f"this party holds no tensor {name!r} of the model:"
                " ask for it again with client.model(name), or upload it again"
            )
        return value

    def _stored_mac(self, i: int) -> Value:
        return self._stored_value(i).with_share(self._randomness.mask_mac(i))

    def _by_depth(self) -> list[list[int]]:
        """Nodes that depend on the run's inputs, by the number of openings before them."""
        pending: list[list[int]] = [[] for _ in range(self.program.rounds + 1)]
        for i, depth in enumerate(self.program.depths):
            if self._shares.value(i).pending and i not in self.program.inputs:
                pending[depth].append(i)
        return pending

    def _output_masks(self) -> list[FieldArray]:
        """Shares of the masks of the outputs and, with MACs, of their MACs."""
        outputs = range(len(self.program.outputs))
        masks = [self._randomness.output_mask(k) for k in outputs]
        if self._macs is not None:
            masks.extend(self._randomness.output_mac_mask(k) for k in outputs)
        return masks

    # -- online ----------------------------------------------------------------------------------------------------

    def online(self, masked_inputs: Sequence[FieldArray]) -> Exchange:
        """Run on ``masked_inputs`` (x - a of each input, in order); returns this party's part of the outputs.

        That is its masked share of each output and, malicious, its masked share of each output's MAC and the seed of
        its share of the key: see ``reveal.py``.

        Raises ProgramError for inputs that do not go with the program, UnreducedOpening for a bad opening, and
        MacCheckError when somebody has cheated.
        """
        if self._used:
            raise ProgramError("this run's masks have been used: a second run needs fresh ones")
        self._used = True
        self._take_inputs(masked_inputs)
        return self._rounds()

    def _take_inputs(self, masked_inputs: Sequence[FieldArray]) -> None:
        if len(masked_inputs) != len(self.program.inputs):
            raise ProgramError(f"{len(masked_inputs)} inputs, but the program takes {len(self.program.inputs)}")
        for i, array in zip(self.program.inputs, masked_inputs, strict=True):
            shape = self.program.nodes[i].type.shape
            if array.dtype != np.uint64 or array.shape != shape or not field.is_reduced(array):
                raise ProgramError(f"an input is not an array of shape {shape} of field elements")
            self._open(i, array)

    def _open(self, i: int, public: FieldArray) -> None:
        """The public part of a masked node has become known."""
        self._shares.open(i, public)
        if self._macs is not None:
            self._macs.open(i, public)

    def _rounds(self) -> Exchange:
        if self._check is not None:
            self._note_public(self._check)
        for nodes in self._pending:
            opening = self._opening(nodes)
            if opening:
                yield from self._round(opening)
            self._evaluate(self._shares, nodes)
            self._evaluated += 1
        if self._check is not None:
            yield from self._timed(CHECK, self._check.run(self._macs_of_openings))
        return self._outputs()

    def _opening(self, nodes: Sequence[int]) -> list[int]:
        return [i for i in nodes if self.program.nodes[i].operation.opens]

    def _note_public(self, check: MacCheck) -> None:
        """What every party must have been sent alike: masked inputs, and masked tensors of models."""
        for i, node in enumerate(self.program.nodes):
            if node.masked_afresh and not node.operation.opens:
                value = self._shares.value(i)
                if value.public is not None and "digest" not in value.public_cache:
                    value.public_cache["digest"] = hashlib.sha256(value.public.reshape(-1).data).digest()
                check.note(value.public_cache["digest"])

    def _evaluate(self, evaluation: Evaluation, nodes: Sequence[int]) -> None:
        for i in nodes:
            node = self.program.nodes[i]
            if not node.operation.opens:
                start = time.perf_counter()
                evaluation.evaluate(i)
                self.seconds[node.label] += time.perf_counter() - start

    def _round(self, nodes: Sequence[int]) -> Generator[FieldArray, Sequence[FieldArray], None]:
        """Open every mask of this depth together."""
        label = self.program.nodes[nodes[0]].label
        start = time.perf_counter()
        shares = self._differences(self._shares, nodes)
        commitment = None if self._check is None else self._check.first_commitment()
        outgoing = shares if commitment is None else np.concatenate([shares, commitment])
        self.seconds[label] += time.perf_counter() - start
        received = yield outgoing
        start = time.perf_counter()
        if len(received) != self._parties - 1 or any(incoming.shape != outgoing.shape for incoming in received):
            raise ProgramError("a round takes one buffer from each other party, as long as the one sent")
        # The buffer that is sent may still be on its way when the sum is formed: add up in another one.
        total = shares.copy() if outgoing is shares else shares
        for position, incoming in enumerate(received):
            if not field.accumulate(total, incoming[: total.size]):
                raise UnreducedOpening(position)
        if self._check is not None:
            self._check.opened(total)
            if commitment is not None:
                self._check.take_commitments([incoming[total.size :] for incoming in received])
        for i, opened in zip(nodes, self._split(total, nodes), strict=True):
            node = self.program.nodes[i]
            known = self._shares.value(node.inputs[0]).public
            array = opened.reshape(node.type.shape)
            self._open(i, array if known is None else field.add(array, known))
        self.seconds[label] += time.perf_counter() - start

    def _differences(self, evaluation: Evaluation, nodes: Sequence[int]) -> FieldArray:
        """Shares of what these masks open, or of its MACs, one after the other."""
        shares = np.empty(sum(self.program.nodes[i].type.size for i in nodes), dtype=np.uint64)
        for i, part in zip(nodes, self._split(shares, nodes), strict=True):
            evaluation.difference(i, part)
        return shares

    def _split(self, array: FieldArray, nodes: Sequence[int]) -> list[FieldArray]:
        return np.split(array, np.cumsum([self.program.nodes[i].type.size for i in nodes])[:-1])

    def _outputs(self) -> list[FieldArray]:
        """Shares of the outputs and their MACs, masked with what the client alone knows, and the key share's seed."""
        parts = [self._shares.folded(i) for i in self.program.outputs]
        if self._macs is not None:
            parts.extend(self._macs.folded(i) for i in self.program.outputs)
        masked = [field.add(part, mask) for part, mask in zip(parts, self._masks, strict=True)]
        return masked if self._macs is None else [*masked, to_words(bytes(self._randomness.key_stream))]

    @property
    def kept(self) -> tuple[Seed, dict[str, FieldArray]]:
        """After ``online``: the seed of this party's masks of what is kept, and ``x - b`` of each by name."""
        values = {tensor: self._shares.value(i).public for tensor, i in self.program.kept.items()}
        return self._randomness.kept_stream, {tensor: array for tensor, array in values.items() if array is not None}

    # -- MACs ------------------------------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Evaluate on MAC shares as far as the shares have been evaluated.

        Nobody waits for the MACs before the check: who drives the run calls this while a round is on its way.
        """
        if self._macs is None:
            return
        while self._authenticated < self._evaluated:
            nodes = self._pending[self._authenticated]
            opening = self._opening(nodes)
            if opening:
                # Its masks' public parts are known by now, and do not enter: this is the shared part alone.
                self._mac_shares.append(self._differences(self._macs, opening))
            self._evaluate(self._macs, nodes)
            self._authenticated += 1

    def _macs_of_openings(self) -> Sequence[FieldArray]:
        self.catch_up()
        return self._mac_shares

    def _timed(self, label: str, rounds: Rounds) -> Rounds:
        """``rounds``, with the time between them counted as ``label``'s."""
        received: Sequence[FieldArray] | None = None
        while True:
            start = time.perf_counter()
            try:
                outgoing = next(rounds) if received is None else rounds.send(received)
            except StopIteration:
                return
            finally:
                self.seconds[label] += time.perf_counter() - start
            received = yield outgoing
