"""A run in memory that somebody disturbs, and what comes of it.

Some parties are *corrupt*: one adversary holds them all, with their seeds, shares and memory, and is *rushing*: in each
round it has everything the honest parties send before it says anything, and may tell each of them something else.
Or the links of the dealer are disturbed, or the client's word.  What exactly is done is a ``Strategy``; the corrupt
parties otherwise follow the protocol, but never complain (``Puppet``).  All others are as they always are.

Whether what was done *matters* is found out by an audit that uses nothing of the check: who holds which shares of which
MACs under which key is known here.  So a check that no longer checks cannot pass for a cheat without effect.
"""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from types import SimpleNamespace
from typing import Any

import numpy as np

from mpc.cost import WORDS
from mpc.errors import PeerLost, ProtocolViolation, RemoteError, TesseraError
from mpc.operation import Value
from mpc.rings import field, known_rings
from mpc.rings.prg import SEED_BYTES, Seed
from mpc.security import Security
from protocols.randomness.dealt import DealtToParty, TrustedDealer, read, read_seeds
from protocols.randomness.streams import key_share, key_stream
from protocols.readings.dealer import deal, digest
from protocols.readings.inputs import masked_inputs
from protocols.readings.mac_check import MacCheck, from_words, to_words
from protocols.readings.memory import MemoryStore, as_sent
from protocols.readings.party import PartyRun
from protocols.readings.reveal import reveal, revealed_parts

Array = np.ndarray
Arrays = list[np.ndarray]


class Puppet(MacCheck):
    """A corrupt party's part in the check: as the protocol has it, but it does not mind what it sees."""

    sigma_error: Any = None
    """(coefficients) -> what to add to sigma."""
    mac_error: tuple[float, int] | None = None
    """Where (a fraction of the way through all that was opened) to add what to the shares of the MACs."""

    def run(self, mac_shares: Any) -> Any:
        commitment = self.first_commitment()
        if commitment is not None:
            self.take_commitments([other[0] for other in (yield [commitment])])
        seen = self._transcript.digest()
        received = yield [np.concatenate([to_words(seen), to_words(self._coin)])]
        coins = [from_words(words[WORDS:]) for (words,) in received]
        coins.insert(self._context.index, self._coin)
        coefficients = Seed(self._hash(b"coefficients", *coins)[:SEED_BYTES])
        macs = mac_shares()
        if self.mac_error is not None and macs:
            where, error = self.mac_error
            array = macs[int(where * len(macs))]
            array[0] = (int(array[0]) + error) % field.P
        sigma = self._sigma(coefficients, macs)
        if self.sigma_error is not None:
            sigma = field.add(sigma, self.sigma_error(coefficients))
        opening = np.concatenate([sigma, to_words(secrets.token_bytes(32))])
        yield [to_words(self.commit_to(opening))]
        yield [opening]

    def commit_to(self, opening: Array) -> bytes:
        return self._commit(b"sigma", self._context.index, opening.tobytes())


@dataclass
class Links:
    """What goes over the dealer's links, and what of models is kept at the parties: to be changed on its way."""

    seeds: list[Seed]
    corrections: Arrays
    client: list[Any]
    digests: list[str]
    """What the dealer tells each party of the client's part."""
    held: list[dict[tuple[str, str], Value]]


@dataclass
class World:
    """All there is to a run; the adversary sees the part of it that it could."""

    case: Any
    parties: int
    corrupt: frozenset[int]
    rng: random.Random
    security: Security = Security.MALICIOUS
    runs: dict[int, PartyRun] = dataclass_field(default_factory=dict)
    said: list[dict[int, Array]] = dataclass_field(default_factory=list)
    """By round: what each party says, if nobody changes it."""
    ahead: dict[int, Array] = dataclass_field(default_factory=dict)
    """What the corrupt parties will say in the next round."""
    touched: bool = False
    """Something that an honest process was sent, or a corrupt one sees, is not what it would have been."""
    deviated: bool = False
    """Something in it must make an honest party fail, whatever the MACs are: what no MAC covers."""

    @property
    def honest(self) -> list[int]:
        return [i for i in range(self.parties) if i not in self.corrupt]

    @property
    def openings(self) -> int:
        return int(self.case.program.rounds)

    @property
    def coin_round(self) -> int:
        return max(self.openings, 1)

    @property
    def sigma_round(self) -> int:
        return self.coin_round + 2

    def opened(self, number: int) -> int:
        """How many elements are opened in a round: what else is said there belongs to the check."""
        if number >= self.openings:
            return 0
        size = len(self.said[number][0])
        return size - WORDS if number == 0 and self.security is Security.MALICIOUS else size


class Strategy:
    """Who does nothing wrong; subclasses do."""

    fewest = 2
    """Parties it takes."""
    honest = 1
    """Honest ones among them, at least."""
    openings = 0
    """Openings the program must have."""
    stored = False
    """Whether it must have stored tensors."""
    parties = True
    """Whether it takes corrupt parties."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self.puppet = self.rng.choice(sorted(world.corrupt)) if world.corrupt else -1
        self.start()

    def start(self) -> None:
        """Make what is chosen at random."""

    def deal(self, links: Links) -> None:
        """Change what the dealer sends."""

    def inputs(self, party: int, masked: Arrays) -> Arrays:
        """What the client sends this party."""
        return masked

    def enter(self) -> None:
        """Change the corrupt parties' memory, before anything is sent."""

    def hear(self, number: int, puppet: int, received: Arrays) -> Arrays:
        """What a corrupt party takes the others to have said."""
        return received

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array | None:
        """What it says to an honest one; None: nothing."""
        return buffer

    def reveal(self, puppet: int, parts: Arrays) -> Arrays:
        """What it sends the client."""
        return parts

    def constant(self) -> int:
        return self.rng.choice([1, 2**16, field.P - 1, 1 << 60, self.rng.randrange(1, field.P)])


@dataclass
class Ending:
    """How it went."""

    world: World
    result: Arrays | TesseraError
    """What the client has."""
    outcomes: dict[int, Arrays | TesseraError]
    """What each honest party handed out, or why it did not."""
    wrong_view: dict[int, bool]
    """Per honest party: whether the MACs of what it saw opened are wrong, or another honest one saw something else."""
    wrong_output: bool
    """Whether the MACs of what reached the client are."""

    @property
    def matters(self) -> bool:
        return self.world.deviated or self.wrong_output or any(self.wrong_view.values())

    @property
    def failed(self) -> list[int]:
        return [i for i, outcome in self.outcomes.items() if isinstance(outcome, TesseraError)]

    @property
    def client_failed(self) -> bool:
        return isinstance(self.result, TesseraError)


def attack(world: World, strategy: Strategy) -> Ending:
    """A run of the program, disturbed."""
    program, parties = world.case.program, world.parties
    # All that is random comes from the schedule's seed, but for the nonces: a failure comes again.
    given = [Seed(world.rng.randbytes(SEED_BYTES)) for _ in range(parties)]
    store = MemoryStore("model", world.case.weights, parties, [seed.derive("store") for seed in given])
    dealing = deal(program, parties, {"model": store.masks}, world.security, given)
    client = dealing.for_client()
    digests = [digest(client)] * parties
    held = [{name: Value(v.public, v.share) for name, v in values.items()} for values in store.held]
    links = Links(list(dealing.seeds), list(dealing.corrections), list(client), digests, held)
    strategy.deal(links)
    outcomes: dict[int, Arrays | TesseraError] = {}
    session = world.rng.randbytes(16)
    for i in range(parties):
        try:
            world.runs[i] = PartyRun(
                program,
                party=i,
                parties=parties,
                randomness=DealtToParty(
                    program,
                    world.security,
                    party=i,
                    parties=parties,
                    seed=links.seeds[i],
                    corrections=as_sent(links.corrections) if i == parties - 1 else [],
                ),
                stored=links.held[i],
                security=world.security,
                session=session,
            )
            if world.runs[i]._check is not None:
                world.runs[i]._check._coin = world.rng.randbytes(32)  # type: ignore[union-attr]
        except TesseraError as error:
            outcomes[i] = error
    types, rings = [program.nodes[i].type for i in program.supplied], known_rings()
    seeds = [read_seeds(data, parties) for data in links.client[: len(types)]]
    masks = [rings[t.ring].sample_sum(streams, t.shape) for streams, t in zip(seeds, types, strict=True)]
    masked = masked_inputs(program, world.case.inputs, SimpleNamespace(input_masks=masks))  # type: ignore[arg-type]
    taken = {i: strategy.inputs(i, list(masked)) for i in range(parties)}
    if world.security is Security.MALICIOUS:
        # As a server does: masks other than those dealt are refused before anything is computed.
        for i in world.honest:
            if digest(links.client) != links.digests[i]:
                outcomes[i] = ProtocolViolation("client", "holds other masks than the dealer made for this run")
    results: dict[int, Arrays] = {}
    if not outcomes:
        for i in world.corrupt:
            # It hands out what it has, whatever it has seen of ranges.
            world.runs[i]._settle = lambda: None  # type: ignore[method-assign]
            if world.runs[i]._check is not None:
                world.runs[i]._check.__class__ = Puppet  # type: ignore[union-attr]
        strategy.enter()
        _rounds(world, strategy, taken, outcomes, results)
    for i in world.honest:
        outcomes.setdefault(i, results.get(i) or RemoteError("a server", "ended the run"))
    outputs = {i: results[i] for i in range(parties) if i in results}
    for i in world.corrupt & outputs.keys():
        outputs[i] = strategy.reveal(i, [part.copy() for part in outputs[i]])
        world.touched |= not _same(outputs[i], results[i])
    result = _client(world, links, outcomes, outputs)
    wrong_view = _audit_views(world, taken, links)
    return Ending(
        world,
        result,
        {i: outcomes[i] for i in world.honest},
        wrong_view,
        not isinstance(result, TesseraError) and _wrong_output(world, links, dealing.seeds, outputs),
    )


def _rounds(
    world: World,
    strategy: Strategy,
    taken: dict[int, Arrays],
    outcomes: dict[int, Arrays | TesseraError],
    results: dict[int, Arrays],
) -> None:
    exchanges: dict[int, Any] = {}
    outgoing: dict[int, Array] = {}
    for i, run in world.runs.items():
        exchanges[i] = run.online(taken[i])
        (outgoing[i],) = next(exchanges[i])
    for number in itertools.count():
        said = {i: buffer.copy() for i, buffer in outgoing.items()}
        world.said.append(said)
        everyone = range(world.parties)
        # Rushing: the corrupt ones have everything first.
        for i in world.corrupt:
            received = strategy.hear(number, i, [said[j].copy() for j in everyone if j != i])
            try:
                (outgoing[i],) = exchanges[i].send([[vector] for vector in received])
            except StopIteration as end:
                results[i] = end.value
        world.ahead = {i: outgoing[i] for i in world.corrupt}
        for i in world.honest:
            received = []
            for j in everyone:
                if j in world.corrupt:
                    told = strategy.say(number, j, i, said[j].copy())
                    world.touched |= told is None or not np.array_equal(told, said[j])
                    if told is None:
                        outcomes[i] = PeerLost(f"party{j}", f"sent no opening of round {number}")
                        break
                    received.append(np.frombuffer(told.tobytes(), np.uint64))
                elif j != i:
                    received.append(np.frombuffer(said[j].tobytes(), np.uint64))
            else:
                try:
                    (outgoing[i],) = exchanges[i].send([[vector] for vector in received])
                except StopIteration as end:
                    results[i] = end.value
                except TesseraError as error:
                    outcomes[i] = error
        if outcomes or results:  # who has failed tells the others, and without it there is no next round
            return


def _client(
    world: World, links: Links, outcomes: dict[int, Arrays | TesseraError], outputs: dict[int, Arrays]
) -> Arrays | TesseraError:
    """The outputs, if everybody sent something; and what ``PreparedRun`` makes of them."""
    program = world.case.program
    failures = [outcome for outcome in outcomes.values() if isinstance(outcome, TesseraError)]
    if failures:
        return failures[0]
    revealed = revealed_parts(program, world.security)
    try:
        sent = []
        for i, parts in outputs.items():
            if len(parts) != len(revealed):
                raise ProtocolViolation(f"party{i}", "sent the wrong number of outputs")
            buffers = [part.tobytes() for part in parts]
            sent.append([read(known_rings(), b, part, "an output") for b, part in zip(buffers, revealed, strict=True)])
        dealt = TrustedDealer().for_client(program, world.security, world.parties, as_sent(links.client))
        return reveal(program, world.security, sent, dealt.output_masks, dealt.key_commitments)
    except TesseraError as error:
        return error


# -- the audit ---------------------------------------------------------------------------------------------------------


def _audit_views(world: World, taken: dict[int, Arrays], links: Links) -> dict[int, bool]:
    """Per honest party: whether the MACs of what it saw opened are wrong, or honest parties were told different things.

    Only as far as the run came.
    """
    if world.security is not Security.MALICIOUS or not world.said:
        return dict.fromkeys(world.honest, False)
    runs = world.runs
    for run in runs.values():
        run.catch_up()
    key = sum(run._check._context.unit for run in runs.values()) % field.P  # type: ignore[union-attr]
    views = {i: runs[i]._check._opened for i in world.honest}  # type: ignore[union-attr]
    first = world.honest[0]
    differ = any(
        not _same(taken[i], taken[first])
        or not all(_same(a, b) for a, b in zip(views[i], views[first], strict=False))
        or any(not _same(v.public, links.held[first][name].public) for name, v in links.held[i].items())
        for i in world.honest
    )
    wrong = {}
    for i in world.honest:
        mistaken = False
        for opened, *macs in zip(views[i], *(run._mac_shares for run in runs.values()), strict=False):
            mistaken |= not _belong(opened, macs, key)
        wrong[i] = differ or mistaken
    return wrong


def _wrong_output(world: World, links: Links, seeds: Sequence[Seed], outputs: dict[int, Arrays]) -> bool:
    """Whether what reached the client has wrong MACs, or comes with another key than was dealt."""
    if world.security is not Security.MALICIOUS:
        return False
    program = world.case.program
    masks, count = links.client[len(program.supplied) :], len(program.outputs)
    streams = [key_stream(seed) for seed in seeds]
    key = sum(map(key_share, streams)) % field.P
    if any(from_words(parts[-1]) != bytes(streams[i]) for i, parts in outputs.items()):
        return True
    for k in range(count):
        y = field.subtract(_sum([parts[k] for parts in outputs.values()]), masks[k])
        macs = [field.subtract(_sum([parts[count + k] for parts in outputs.values()]), masks[count + k])]
        if not _belong(y, macs, key):
            return True
    return False


def _belong(values: Array, macs: Sequence[Array], key: int) -> bool:
    """Whether these are shares of key times the values: with Python's own integers."""
    sums = [sum(map(int, shares)) for shares in zip(*(m.reshape(-1) for m in macs), strict=True)]
    return all((s - key * int(v)) % field.P == 0 for s, v in zip(sums, values.reshape(-1), strict=True))


def _sum(arrays: Sequence[Array]) -> Array:
    total = arrays[0]
    for array in arrays[1:]:
        total = field.add(total, array)
    return total


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(np.array_equal(a, b))
