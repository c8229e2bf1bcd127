"""A party's reading of a program: what it prepares offline, what it computes and sends online.

Without input or output of its own: ``online`` is a generator that yields what the party sends to every other party in a
round and is sent what they sent, in order of party.  Whoever drives it (sockets, or a list in a test) moves bytes.

    run = PartyRun(program, party=0, parties=2, randomness=randomness, stored=store)
    exchange = run.online(masked_inputs)
    outgoing = next(exchange)                 # a round: a vector for each ring that is opened in it
    outgoing = exchange.send(received)        # ... until StopIteration, whose value is what the client is sent

What is prepared is cut into parts (``mpc/schedule.py``): the first one when the run is made, and each of the others
when whoever drives it hands over what the source has sent (``prepare``), before the online phase or beside it, which
may take its next step when that is ``provided``.

Semi-honest, a round is an opening, and at least one where what is somebody's is read: whoever drives the run compares
along with the first what the parties were sent (``mpc.cost.compares_apart``).  Malicious, everything is evaluated a
second time, on MAC shares, the first opening carries a commitment as well, and the rounds of the MAC check come after
the last one (``mac_check.py``).
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mpc.cost import CHECK, compares_apart
from mpc.errors import NoAnswer, ProgramError, TesseraError
from mpc.operation import Operation, PartyContext, Stored, Value
from mpc.pace import paced
from mpc.program import Program
from mpc.program_format import Node
from mpc.rings import Array, Buffer, Ring, Rings
from mpc.rings.prg import Seed, fresh_seed
from mpc.security import Security
from mpc.tensor_type import Shape
from protocols.randomness.source import PartyRandomness, Payload
from protocols.randomness.streams import key_share
from protocols.readings.drawing import AS_IT_IS, Order
from protocols.readings.evaluation import Evaluation
from protocols.readings.mac_check import MacCheck, Round, Rounds, check_round, session_of, to_words
from protocols.readings.reveal import masked_types

Exchange = Generator[Round, Sequence[Round], list[Buffer]]


class UnreducedOpening(TesseraError):  # noqa: N818 - says what came, not that it is an error
    """Another party sent a number outside the field; ``position`` is its place among those received."""

    def __init__(self, position: int) -> None:
        super().__init__("an opening holds a number outside the field")
        self.position = position


class OutOfRange(TesseraError):  # noqa: N818 - says what is so
    """A value of this ``source`` lies outside of the range that the program says."""

    def __init__(self, source: Operation) -> None:
        super().__init__("a value lies outside of its range: nothing was revealed")
        self.source = source


class _Opened(NamedTuple):
    """What is opened in one round, of one ring."""

    ring: Ring
    nodes: Sequence[int]
    shapes: Sequence[Shape]


class PartyRun:
    """One run at one party.  Made offline, then ``online`` once: masks are used once.

    ``prepare`` may run in one thread while the online phase goes on in another.
    """

    def __init__(
        self,
        program: Program,
        *,
        party: int,
        parties: int,
        randomness: PartyRandomness,
        stored: Mapping[tuple[str, str], Value],
        security: Security = Security.SEMI_HONEST,
        session: bytes = b"",
        rings: Rings | None = None,
        order: Order = AS_IT_IS,
    ) -> None:
        """``randomness``: this party's part of what was made for this run; what belongs to the first part is prepared.

        ``stored``: by slot and tensor, what is bound there; ``order``: in which rows of it are drawn.

        ``session`` is what the check's commitments are bound to besides the program: a name of this run that no other
        has, the same at every party.

        Raises ProgramError when ``stored`` does not go with the program.
        """
        self.program = program
        self.seconds: dict[str, float] = defaultdict(float)
        """Time spent computing online, by label."""
        self.schedule = program.schedule(security)
        self.prepared = 0
        """Parts that are."""
        self.evaluated = 0
        """Depths up to which of the shares has been evaluated what openings wait for."""
        self._parties = parties
        self._security = security
        self._used = False
        self._stored = stored
        self._order = order
        for node in program.nodes:
            if isinstance(node.operation, Stored):
                self._stored_tensor(node.operation)
        self._randomness = randomness
        shares = PartyContext(party, parties, rings=rings)
        self._rings = shares.rings
        self._shares = Evaluation(program, shares)
        self._macs: Evaluation | None = None
        self._check: MacCheck | None = None
        if security is Security.MALICIOUS:
            macs = PartyContext(party, parties, unit=key_share(randomness.key_stream), rings=rings)
            self._macs = Evaluation(program, macs)
            self._check = MacCheck(macs, session_of(program.digest, parties, session))
        self._pending = self._by_depth()
        self._openings = [self._opened_together(nodes) for nodes in self._pending]
        """By the number of openings before them: what is opened together."""
        self._late = self._not_waited_for()
        self._done = self._not_taken_after()
        self._whole = 0
        """Depths up to which all shares have been evaluated."""
        self._authenticated = 0
        """Depths up to which the MAC shares have been."""
        self._mac_shares: list[Array] = []
        """By round, shares of the MACs of the vector that was opened."""
        self._masks = self._output_masks()
        self._prepare_part()

    # -- offline ---------------------------------------------------------------------------------------------------

    def prepare(self, payload: Payload) -> None:
        """The next part, from what the source sent of it.  Raises ProgramError if it does not go with the program."""
        self._randomness.take(payload)
        self._prepare_part()

    def _prepare_part(self) -> None:
        nodes, randomness = self.schedule.parts[self.prepared], self._randomness
        self._shares.prepare(nodes, self._stored_share, randomness.mask, randomness.dealt)
        if self._macs is not None:
            self._macs.prepare(nodes, self._stored_mac, self._mask_mac, randomness.dealt_macs)
        self.prepared += 1

    @property
    def provided(self) -> bool:
        """Whether all is prepared that the next step of ``online`` takes."""
        return self.prepared >= self.schedule.due(self.evaluated)

    def _stored_value(self, node: Node) -> Value:
        operation = node.operation
        if not isinstance(operation, Stored):
            raise ProgramError(f"{operation.name} reads nothing that is stored")
        value = self._stored_tensor(operation)
        if not operation.rows:
            return value
        ring, positions = self._rings[node.type.ring], self._order.positions(operation)
        public, share = (None if x is None else ring.take(x, positions, 0) for x in (value.public, value.share))
        return Value(public, share)

    def _stored_tensor(self, operation: Stored) -> Value:
        """All of what it reads, or draws rows of.  Raises ProgramError."""
        value = self._stored.get((operation.slot, operation.tensor))
        if value is None or value.public is None or value.public.shape != operation.whole:
            raise ProgramError(
                f"this party holds no tensor {operation.tensor!r} of the model:"
                " ask for it again with client.model(name), or upload it again"
            )
        return value

    def _stored_share(self, i: int) -> Value:
        return self._stored_value(self.program.nodes[i])

    def _stored_mac(self, i: int) -> Value:
        return self._stored_share(i).with_share(self._randomness.mask_mac(i))

    def _mask_mac(self, i: int) -> Array | None:
        return self._randomness.mask_mac(i) if self.program.keyed(i) else None

    def _by_depth(self) -> list[list[int]]:
        """Nodes that depend on the run's inputs, by the number of openings before them."""
        pending: list[list[int]] = [[] for _ in range(self.program.rounds + 1)]
        inputs = set(self.program.supplied)
        for i, (depth, waits) in enumerate(paced(zip(self.program.depths, self.schedule.pending, strict=True))):
            if waits and i not in inputs:
                pending[depth].append(i)
        return pending

    def _not_waited_for(self) -> frozenset[int]:
        """Nodes that neither the next opening nor an output comes from: they have time until it has come."""
        nodes, depths = self.program.nodes, self.program.depths
        waited_for = {i for i, depth in enumerate(depths) if depth == self.program.rounds}
        for i in range(len(nodes) - 1, -1, -1):
            if nodes[i].operation.opens or i in waited_for:
                before = depths[i] - nodes[i].operation.opens
                waited_for.update(j for j in nodes[i].inputs if depths[j] == before)
        return frozenset(range(len(nodes))) - waited_for

    def _not_taken_after(self) -> list[list[int]]:
        """Nodes whose values nobody looks at any more, by the number of openings before that is so."""
        turns = self.schedule.turns
        until = list(turns)
        for node, turn in zip(self.program.nodes, turns, strict=True):
            for i in node.inputs:
                until[i] = max(until[i], turn)
        done: list[list[int]] = [[] for _ in self._pending]
        wanted = {*self.program.outputs, *self.program.kept.values(), *self.program.draws}
        for i, node in enumerate(self.program.nodes):
            if i not in wanted and not node.operation.settles:
                done[min(until[i], self.program.rounds)].append(i)
        return done

    def _output_masks(self) -> list[Array]:
        """Shares of the masks of the outputs and, with MACs, of their MACs."""
        outputs = range(len(self.program.outputs))
        masks = [self._randomness.output_mask(k) for k in outputs]
        if self._macs is not None:
            masks.extend(self._randomness.output_mac_mask(k) for k in outputs)
        return masks

    # -- online ----------------------------------------------------------------------------------------------------

    def online(self, masked_inputs: Sequence[Array]) -> Exchange:
        """Run on ``masked_inputs`` (x - a of all that is supplied, in order); returns this party's part of the outputs.

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

    def _take_inputs(self, masked_inputs: Sequence[Array]) -> None:
        if len(masked_inputs) != len(self.program.supplied):
            raise ProgramError(f"{len(masked_inputs)} inputs, but the program takes {len(self.program.supplied)}")
        for i, array in zip(self.program.supplied, masked_inputs, strict=True):
            t = self.program.nodes[i].type
            if not self._rings[t.ring].holds(array, t.shape):
                raise ProgramError(f"an input is not an array of shape {t.shape} of {t.ring} elements")
            self._open(i, array)

    def _open(self, i: int, public: Array) -> None:
        """The public part of a masked node has become known."""
        beside: dict[str, Any] | None = None if self._macs is None else {}
        self._shares.open(i, public, beside)
        if self._macs is not None:
            self._macs.open(i, public, beside)

    def _rounds(self) -> Exchange:
        if self._check is not None:
            self._note_public(self._check)
        for nodes, opened in zip(self._pending, self._openings, strict=True):
            if opened:
                yield from self._round(opened)
            self._evaluate_rest()
            self._evaluate(self._shares, [i for i in nodes if i not in self._late])
            self.evaluated += 1
        self._evaluate_rest()
        if self._check is not None:
            yield from self._timed(CHECK, self._check.run(self._macs_of_openings))
        elif compares_apart(self.program):
            check_round([], (yield []), self._parties)
        self._settle()
        return self._outputs()

    def _evaluate_rest(self) -> None:
        """Of the shares what the opening that is on its way has not waited for."""
        if self._whole < self.evaluated:
            self._evaluate(self._shares, [i for i in self._pending[self._whole] if i in self._late])
            self._shares.forget(self._done[self._whole])
            self._whole += 1

    def _settle(self) -> None:
        """Nothing leaves that was computed of values outside of their range.  Raises OutOfRange, NoAnswer.

        Not before the MAC check: whoever is blamed has done it.  Of both, the former says more.
        """
        unsettled = False
        for i, node in enumerate(self.program.nodes):
            public = self._shares.value(i).public if node.operation.settles else None
            if public is not None and not self._rings[node.type.ring].is_zero(public):
                if node.operation.checks:
                    raise OutOfRange(self.program.nodes[node.inputs[0]].operation)
                unsettled = True
        if unsettled:
            raise NoAnswer("a value left the interval of a function, or the range assumed of it: nothing was kept")

    def _note_public(self, check: MacCheck) -> None:
        """What every party must have been sent alike: masked inputs, and masked tensors of models."""
        for i, node in enumerate(self.program.nodes):
            if isinstance(node.operation, Stored) or node.operation.supplied:
                value = self._stored_value(node) if isinstance(node.operation, Stored) else self._shares.value(i)
                if value.public is None:
                    continue
                if "digest" not in value.public_cache:
                    public = self._rings[node.type.ring].buffer(value.public)
                    value.public_cache["digest"] = hashlib.sha256(public.reshape(-1).data).digest()
                check.note(value.public_cache["digest"])

    def _evaluate(self, evaluation: Evaluation, nodes: Sequence[int]) -> None:
        for i in paced(nodes):
            node = self.program.nodes[i]
            if not node.operation.opens:
                start = time.perf_counter()
                evaluation.evaluate(i)
                self.seconds[node.label] += time.perf_counter() - start

    def _round(self, together: Sequence[_Opened]) -> Generator[Round, Sequence[Round], None]:
        """Open every mask of this depth together."""
        label = self.program.nodes[min(opened.nodes[0] for opened in together)].label
        start = time.perf_counter()
        shares = [self._differences(self._shares, opened) for opened in together]
        outgoing = [opened.ring.buffer(share) for opened, share in zip(together, shares, strict=True)]
        # With MACs all that is opened is of the field: one vector.
        commitment = None if self._check is None else self._check.first_commitment()
        if commitment is not None:
            outgoing = [np.concatenate([outgoing[0], commitment])]
        self.seconds[label] += time.perf_counter() - start
        received = yield outgoing
        self._evaluate_rest()
        start = time.perf_counter()
        check_round(outgoing, received, self._parties)
        for k, (ring, nodes, shapes) in enumerate(together):
            total = shares[k]
            end = len(outgoing[k]) - (0 if commitment is None else len(commitment))
            for position, incoming in enumerate(received):
                # The buffer that is sent may still be on its way when the sum is formed: add up in another one.
                added = ring.accumulated(total, incoming[k][:end])
                if added is None:
                    raise UnreducedOpening(position)
                total = added
            if self._check is not None:
                self._check.opened(total)
                if commitment is not None:
                    self._check.take_commitments([incoming[k][end:] for incoming in received])
            for i, array in zip(nodes, ring.split(total, shapes), strict=True):
                node = self.program.nodes[i]
                of = node.inputs if not node.operation.bare else ()
                known = self._shares.value(of[0]).public if of else None
                self._open(i, array if known is None else ring.add(array, known))
        self.seconds[label] += time.perf_counter() - start

    def _opened_together(self, nodes: Sequence[int]) -> list[_Opened]:
        """Those that open something, ring by ring, in the order of ``Program.rings``."""
        groups: dict[str, list[int]] = {name: [] for name in self.program.rings}
        for i in nodes:
            node = self.program.nodes[i]
            if node.operation.opens:
                groups[node.type.ring].append(i)
        return [
            _Opened(self._rings[name], opening, [self.program.nodes[i].type.shape for i in opening])
            for name, opening in groups.items()
            if opening
        ]

    def _differences(self, evaluation: Evaluation, opened: _Opened) -> Array:
        """Shares of what these masks open, or of its MACs, one after the other."""
        ring, nodes, shapes = opened
        shares = ring.vector(shapes)
        for i, part in zip(nodes, ring.split(shares, shapes), strict=True):
            if self.program.nodes[i].inputs:
                evaluation.difference(i, part)
            elif evaluation is self._shares:
                # Fresh in each run, and nobody else's: it is no share of anything.
                ring.difference(ring.sample(Seed(fresh_seed()), self.program.nodes[i].type.shape), None, part)
            else:
                # Known to all: its MAC is the key's share times it.
                evaluation.known(i, self._shares.value(i), part)
        return shares

    def _outputs(self) -> list[Buffer]:
        """Shares of the outputs and their MACs, masked with what the client alone knows, and the key share's seed."""
        parts = [self._shares.folded(i) for i in self.program.outputs]
        if self._macs is not None:
            parts.extend(self._macs.folded(i) for i in self.program.outputs)
        rings = [self._rings[t.ring] for t in masked_types(self.program, self._security)]
        summands = zip(rings, parts, self._masks, strict=True)
        masked = [ring.buffer(ring.add(part, mask)) for ring, part, mask in summands]
        return masked if self._macs is None else [*masked, to_words(bytes(self._randomness.key_stream))]

    @property
    def kept(self) -> tuple[Seed, dict[str, Array]]:
        """After ``online``: the seed of this party's masks of what is kept, and ``x - b`` of each by name."""
        values = {tensor: self._shares.value(i).public for tensor, i in self.program.kept.items()}
        return self._randomness.kept_stream, {tensor: array for tensor, array in values.items() if array is not None}

    # -- MACs ------------------------------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Evaluate what nobody has waited for: of shares, and on MAC shares as far as the shares have been evaluated.

        Nobody waits for the MACs before the check: who drives the run calls this while a round is on its way.
        """
        self._evaluate_rest()
        if self._macs is None:
            return
        while self._authenticated < self._whole:
            nodes = self._pending[self._authenticated]
            # Its masks' public parts are known by now, and do not enter: this is the shared part alone.
            for opened in self._openings[self._authenticated]:
                self._mac_shares.append(self._differences(self._macs, opened))
            self._evaluate(self._macs, nodes)
            self._macs.forget(self._done[self._authenticated])
            self._authenticated += 1

    def _macs_of_openings(self) -> Sequence[Array]:
        self.catch_up()
        return self._mac_shares

    def _timed(self, label: str, rounds: Rounds) -> Rounds:
        """``rounds``, with the time between them counted as ``label``'s."""
        received: Sequence[Round] | None = None
        while True:
            start = time.perf_counter()
            try:
                outgoing = next(rounds) if received is None else rounds.send(received)
            except StopIteration:
                return
            finally:
                self.seconds[label] += time.perf_counter() - start
            received = yield outgoing
