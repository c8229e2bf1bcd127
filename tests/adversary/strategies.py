"""What the adversary does: one small class for each cheat."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from adversary import Array, Arrays, Links, Puppet, Strategy, attack

from mpc.cost import WORDS
from mpc.operation import Value
from mpc.rings import field
from mpc.rings.prg import SEED_BYTES, Seed
from protocols.operations.decomposed import Recomposed
from protocols.randomness.streams import key_share
from protocols.readings.dealer import digest
from protocols.readings.mac_check import to_words

STRATEGIES: dict[str, type[Strategy]] = {}


def cheat(name: str) -> Any:
    def keep(strategy: type[Strategy]) -> type[Strategy]:
        assert name not in STRATEGIES
        STRATEGIES[name] = strategy
        return strategy

    return keep


def at(size: int, place: int, value: int) -> Array:
    array = field.zeros(size)
    array[place] = value % field.P
    return array


def flipped(buffer: Any, rng: Any) -> Any:
    """With one bit changed; arrays stay arrays."""
    data = bytearray(buffer.tobytes() if isinstance(buffer, np.ndarray) else buffer)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return (
        np.frombuffer(bytes(data), np.uint64).reshape(buffer.shape) if isinstance(buffer, np.ndarray) else bytes(data)
    )


# -- shares of what is opened ------------------------------------------------------------------------------------------


@cheat("a bit of a message")
class FlipBit(Strategy):
    """Of any round, to one party or to all."""

    def start(self) -> None:
        self.number = self.rng.randrange(self.world.sigma_round + 1)
        self.receiver = self.rng.choice([None, self.rng.choice(self.world.honest)])
        self.bit = self.rng.random()

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array:
        if number == self.number and puppet == self.puppet and self.receiver in (None, receiver):
            bit = int(self.bit * 64 * len(buffer))
            self.world.deviated |= bit // 64 >= self.world.opened(number)
            buffer[bit // 64] ^= np.uint64(1 << (bit % 64))
        return buffer


class Errors(Strategy):
    """Adds to shares of openings: the same to everybody who is told."""

    openings: ClassVar[int] = 1
    everywhere: ClassVar[bool] = False
    """The corrupt parties take the wrong value for the right one as well, as in a consistent run."""

    def start(self) -> None:
        self.errors = {self.rng.randrange(self.world.openings): [(self.rng.random(), self.constant())]}

    def error(self, number: int, buffer: Array) -> Array:
        size = self.world.opened(number)
        for where, value in self.errors.get(number, []):
            buffer = field.add(buffer, at(len(buffer), int(where * size), value))
        return buffer

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array | None:
        return self.error(number, buffer) if puppet == self.puppet and number in self.errors else buffer

    def hear(self, number: int, puppet: int, received: Arrays) -> Arrays:
        if self.everywhere and number in self.errors:
            received[0] = self.error(number, received[0])
        return received


@cheat("a constant added to a share")
class Constant(Errors):
    pass


@cheat("the same error to all")
class SameError(Errors):
    everywhere = True


@cheat("an error in every round")
class EveryRound(Errors):
    everywhere = True

    def start(self) -> None:
        self.errors = {k: [(self.rng.random(), self.constant())] for k in range(self.world.openings)}


@cheat("errors that cancel in an opening")
class Cancel(Errors):
    everywhere = True

    def start(self) -> None:
        value = self.constant()
        self.errors = {self.rng.randrange(self.world.openings): [(0.0, value), (0.999, -value)]}

    def error(self, number: int, buffer: Array) -> Array:
        """Of a single number, nothing would be left of the two: it gets the first."""
        if self.world.opened(number) == 1:
            self.errors[number] = self.errors[number][:1]
        return super().error(number, buffer)


@cheat("errors that cancel across rounds")
class CancelAcross(Errors):
    openings = 2
    everywhere = True

    def start(self) -> None:
        value, where = self.constant(), self.rng.random()
        first, second = self.rng.sample(range(self.world.openings), 2)
        self.errors = {first: [(where, value)], second: [(where, -value)]}


@cheat("another's share as one's own")
class CopyShare(Strategy):
    openings = 1

    def start(self) -> None:
        self.number = self.rng.randrange(self.world.openings)
        self.source = self.rng.choice(self.world.honest)

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array:
        if number == self.number and puppet == self.puppet:
            size = self.world.opened(number)
            buffer[:size] = self.world.said[number][self.source][:size]
        return buffer


@cheat("a share that makes the sum zero")
class Annul(Strategy):
    """Rushing: the opened value is the adversary's choice."""

    openings = 1

    def start(self) -> None:
        self.number = self.rng.randrange(self.world.openings)

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array:
        if number == self.number and puppet == self.puppet:
            size = self.world.opened(number)
            total = field.zeros(size)
            for party, said in self.world.said[number].items():
                if party != puppet:
                    total = field.subtract(total, said[:size])
            if np.array_equal(total, buffer[:size]):
                # What an honest client's bits are off by is 0 already.
                total[0] = (int(total[0]) + 1) % field.P
            buffer[:size] = total
        return buffer


# -- different things for different parties ----------------------------------------------------------------------------


@cheat("different values to two honest parties")
class Equivocate(Errors):
    fewest = 3
    honest = 2

    def start(self) -> None:
        super().start()
        self.victim = self.rng.choice(self.world.honest)

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array | None:
        return super().say(number, puppet, receiver, buffer) if receiver == self.victim else buffer


@cheat("errors that cancel between two honest parties")
class EquivocateCancelling(Errors):
    fewest = 3
    honest = 2

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array | None:
        changed = super().say(number, puppet, receiver, buffer.copy())
        if receiver == self.world.honest[0]:
            return changed
        return field.subtract(field.add(buffer, buffer), changed)


@cheat("different values, and to each the hash it expects")
class EquivocateAndLie(Equivocate):
    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array | None:
        if number == self.world.coin_round:
            buffer[:WORDS] = self.world.said[number][receiver][:WORDS]
        return super().say(number, puppet, receiver, buffer)


@cheat("an error towards all others, and the hash they expect")
class ErrorAndLie(Errors):
    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array | None:
        if number == self.world.coin_round:
            buffer[:WORDS] = self.world.said[number][receiver][:WORDS]
        return super().say(number, puppet, receiver, buffer)


@cheat("different inputs to two parties")
class EquivocateInputs(Strategy):
    """The client's doing; nobody else cheats."""

    parties = False
    honest = 2

    def start(self) -> None:
        self.victim = self.rng.choice(self.world.honest)
        self.value, self.which = self.constant(), self.rng.random()

    def inputs(self, party: int, masked: Arrays) -> Arrays:
        if party == self.victim:
            self.world.touched = self.world.deviated = True
            k = int(self.which * len(masked))
            if masked[k].dtype == np.uint8:
                masked[k] = masked[k] ^ np.uint8(1)
            else:
                masked[k] = field.add(masked[k].reshape(-1), at(masked[k].size, 0, self.value)).reshape(masked[k].shape)
        return masked


@cheat("bits that are not those of the input")
class WrongBits(Strategy):
    """The client's doing; nobody else cheats."""

    parties = False
    stored = True

    def start(self) -> None:
        self.place = self.rng.random()

    def inputs(self, party: int, masked: Arrays) -> Arrays:
        """To all alike."""
        self.world.touched = self.world.deviated = True
        (k,) = (k for k, array in enumerate(masked) if array.dtype == np.uint8)
        masked[k] = masked[k].copy()
        # The first bit of a plane is in use.
        masked[k][int(self.place * len(masked[k])), 0] ^= np.uint8(1)
        return masked


@cheat("bits that are not those of the input, and an accomplice that makes 0 of what they are off by")
class WrongBitsTogether(WrongBits):
    parties = True

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array:
        if number or puppet != self.puppet:
            return buffer
        program = self.world.case.program
        opened = [i for i, n in enumerate(program.nodes) if n.operation.opens and program.depths[i] == 1]
        start = 0
        for i in opened:
            size = program.nodes[i].type.size
            if isinstance(program.nodes[i].operation, Recomposed):
                total = sum(int(said[start]) for said in self.world.said[0].values())
                buffer[start] = (int(buffer[start]) - total) % field.P
            start += size
        return buffer


@cheat("different inputs to two parties, and an accomplice")
class EquivocateInputsTogether(EquivocateInputs):
    """Client and corrupt parties together: the latter lie about what they have seen."""

    parties = True
    fewest = 3

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array | None:
        if number == self.world.coin_round:
            buffer[:WORDS] = self.world.said[number][receiver][:WORDS]
        return buffer


@cheat("different public parts of a stored tensor")
class EquivocateStored(Strategy):
    """Of the uploader of the model."""

    stored = True
    parties = False
    honest = 2

    def deal(self, links: Links) -> None:
        held = links.held[self.rng.choice(self.world.honest)]
        name = self.rng.choice(sorted(held))
        value = held[name]
        public: Any = value.public
        public = field.add(public.reshape(-1), at(public.size, 0, self.constant())).reshape(public.shape)
        held[name] = Value(public, value.share)
        self.world.touched = self.world.deviated = True


# -- the check ---------------------------------------------------------------------------------------------------------


@cheat("another's coin commitment, and its coin")
class CopyCoin(Strategy):
    def start(self) -> None:
        self.source = self.rng.choice(self.world.honest)

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array:
        if puppet == self.puppet and number in (0, self.world.coin_round):
            self.world.deviated = True
            buffer[-WORDS:] = self.world.said[number][self.source][-WORDS:]
        return buffer


@cheat("another coin than committed to")
class OtherCoin(Strategy):
    """Chosen when all others are known."""

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array:
        if puppet == self.puppet and number == self.world.coin_round:
            self.world.deviated = True
            buffer[WORDS:] = to_words(self.rng.randbytes(32))
        return buffer


@cheat("commitments to two coins")
class TwoCoins(Strategy):
    """Each honest party gets a commitment and an opening that go together."""

    fewest = 3
    honest = 2

    def start(self) -> None:
        self.victim = self.rng.choice(self.world.honest)
        self.coin = self.rng.randbytes(32)

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array:
        if puppet == self.puppet and receiver == self.victim:
            check: Any = self.world.runs[puppet]._check
            if number == 0:
                self.world.deviated = True
                buffer[-WORDS:] = to_words(check._commit(b"coin", puppet, self.coin))
            if number == self.world.coin_round:
                buffer[:WORDS] = self.world.said[number][receiver][:WORDS]
                buffer[WORDS:] = to_words(self.coin)
        return buffer


@cheat("another hash of what was opened")
class OtherHash(Strategy):
    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array:
        if puppet == self.puppet and number == self.world.coin_round:
            self.world.deviated = True
            buffer[:WORDS] = to_words(self.rng.randbytes(32))
        return buffer


@cheat("another's sigma commitment, and its sigma")
class CopySigma(Strategy):
    def start(self) -> None:
        self.source = self.rng.choice(self.world.honest)

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array:
        if puppet == self.puppet and number >= self.world.sigma_round - 1:
            self.world.deviated = True
            buffer[:] = self.world.said[number][self.source]
        return buffer


@cheat("another sigma than committed to")
class OtherSigma(Strategy):
    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array:
        if puppet == self.puppet and number == self.world.sigma_round:
            self.world.deviated = True
            buffer[0] = (int(buffer[0]) + self.constant()) % field.P
        return buffer


@cheat("an error, and the sigma that makes up for it, too late")
class AdaptiveSigma(Errors):
    """Once all others are open: minus their sum."""

    everywhere = True

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array | None:
        if puppet == self.puppet and number == self.world.sigma_round:
            self.world.deviated = True
            others = sum(int(said[0]) for party, said in self.world.said[number].items() if party != puppet)
            buffer[0] = -others % field.P
        return super().say(number, puppet, receiver, buffer)


@cheat("an error, and a sigma that is empty")
class EmptySigma(Errors):
    """Committed to as such; a sum with nothing in it is nothing, and is not wrong."""

    everywhere = True

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array | None:
        check: Any = self.world.runs[puppet]._check
        empty = np.empty(0, np.uint64)
        if puppet == self.puppet and number == self.world.sigma_round - 1:
            self.world.deviated = True
            return to_words(check.commit_to(empty))
        if puppet == self.puppet and number == self.world.sigma_round:
            return empty
        return super().say(number, puppet, receiver, buffer)


@cheat("an error, and a sigma with more to it")
class LongSigma(EmptySigma):
    """Two elements, the sum of the right one and of nothing in particular."""

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array | None:
        check: Any = self.world.runs[puppet]._check
        long = np.concatenate([self.world.ahead.get(puppet, buffer), field.zeros(1)])
        if puppet == self.puppet and number == self.world.sigma_round - 1:
            self.world.deviated = True
            self.opening = long
            return to_words(check.commit_to(long))
        if puppet == self.puppet and number == self.world.sigma_round:
            return self.opening
        return Errors.say(self, number, puppet, receiver, buffer)


@cheat("a wrong sigma")
class WrongSigma(Strategy):
    """Committed to and opened as it is."""

    def enter(self) -> None:
        error = np.array([self.constant()], np.uint64)
        check: Any = self.world.runs[self.puppet]._check
        assert isinstance(check, Puppet)
        check.sigma_error = lambda _: error
        self.world.touched = self.world.deviated = True


@cheat("an error, and the sigma of a guessed key")
class GuessedKey(Errors):
    """What would make up for the error if the honest parties' shares of the key added up to the guess."""

    everywhere = True

    def enter(self) -> None:
        guess = self.rng.choice([0, 1, self.rng.randrange(field.P)])
        check: Any = self.world.runs[self.puppet]._check

        def sigma_error(coefficients: Seed) -> Array:
            total = 0
            for number, places in self.errors.items():
                size = check._opened[number].size
                chi = coefficients.derive(f"round {number}").elements(size)
                total += sum(int(chi[int(where * size)]) * value for where, value in places)
            return np.array([guess * total % field.P], np.uint64)

        check.sigma_error = sigma_error


@cheat("wrong shares of MACs")
class WrongMacs(Strategy):
    openings = 1

    def enter(self) -> None:
        check: Any = self.world.runs[self.puppet]._check
        check.mac_error = self.rng.random(), self.constant()
        self.world.touched = True


@cheat("a wrong share of the key")
class WrongKey(Strategy):
    openings = 1

    def enter(self) -> None:
        context: Any = self.world.runs[self.puppet]._check._context  # type: ignore[union-attr]
        context.unit = (context.unit + self.constant()) % field.P
        self.world.touched = True


# -- form and order ----------------------------------------------------------------------------------------------------


class Malformed(Strategy):
    """One message of any round, to one party."""

    def start(self) -> None:
        self.number = self.rng.randrange(self.world.sigma_round + 1)
        self.victim = self.rng.choice(self.world.honest)

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array | None:
        if number == self.number and puppet == self.puppet and receiver == self.victim:
            self.world.deviated = True
            return self.instead(buffer)
        return buffer

    def instead(self, buffer: Array) -> Array | None:
        raise NotImplementedError


@cheat("a message cut short")
class Truncate(Malformed):
    def instead(self, buffer: Array) -> Array:
        return buffer[: self.rng.randrange(len(buffer))]


@cheat("a message with more at its end")
class Lengthen(Malformed):
    def instead(self, buffer: Array) -> Array:
        return np.concatenate([buffer, buffer[: self.rng.randint(1, len(buffer))]])


@cheat("a number outside the field")
class Unreduced(Malformed):
    def instead(self, buffer: Array) -> Array:
        place = self.rng.randrange(len(buffer))
        buffer[place] = self.rng.choice([field.P + int(buffer[place]), 2**64 - 1])
        return buffer


@cheat("silence")
class Silence(Malformed):
    """Once the others' openings are there."""

    def instead(self, buffer: Array) -> None:
        return None


@cheat("a message of an earlier round")
class Replay(Strategy):
    """As long as the one it stands for."""

    def start(self) -> None:
        self.number = self.rng.randrange(1, self.world.sigma_round + 1)

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array:
        if number == self.number and puppet == self.puppet:
            earlier = self.world.said[self.rng.randrange(number)][self.rng.choice([puppet, receiver])]
            size = self.world.opened(number)
            changed = np.resize(earlier, len(buffer))
            self.world.deviated |= not np.array_equal(changed[size:], buffer[size:])
            return changed
        return buffer


@cheat("messages of another run of the same program")
class ReplayRun(Strategy):
    """One, or all from some round on."""

    def start(self) -> None:
        world = self.world
        before = type(world)(world.case, world.parties, world.corrupt, world.rng, world.security)
        attack(before, Strategy(before))
        self.before = before.said
        self.first = self.rng.randrange(world.sigma_round + 1)
        self.last = self.rng.choice([self.first, world.sigma_round])

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array:
        if self.first <= number <= self.last and puppet == self.puppet:
            self.world.deviated |= number >= self.world.openings
            return self.before[number][puppet].copy()
        return buffer


@cheat("two rounds in another order")
class Reorder(Strategy):
    """Rushing: it has the next round's message before it has sent this one's."""

    def start(self) -> None:
        self.number = self.rng.randrange(self.world.sigma_round)

    def say(self, number: int, puppet: int, receiver: int, buffer: Array) -> Array:
        if puppet == self.puppet and number == self.number:
            self.world.deviated |= len(self.world.ahead[puppet]) != len(buffer)
            return self.world.ahead[puppet].copy()
        if puppet == self.puppet and number == self.number + 1:
            return self.world.said[number - 1][puppet].copy()
        return buffer


# -- what goes to the client -------------------------------------------------------------------------------------------


class ToClient(Strategy):
    """Changes what a corrupt party sends the client."""

    def start(self) -> None:
        self.value, self.place = self.constant(), self.rng.random()

    def reveal(self, puppet: int, parts: Arrays) -> Arrays:
        if puppet != self.puppet:
            return parts
        outputs = len(self.world.case.program.outputs)
        self.k = int(self.place * outputs)
        return self.instead(parts, self.k, outputs + self.k)

    def shift(self, array: Array, value: int) -> Array:
        return field.add(array.reshape(-1), at(array.size, 0, value)).reshape(array.shape)

    def instead(self, parts: Arrays, y: int, mac: int) -> Arrays:
        raise NotImplementedError


@cheat("a wrong share of an output")
class WrongOutput(ToClient):
    """That would pass if the key were 0."""

    def instead(self, parts: Arrays, y: int, mac: int) -> Arrays:
        parts[y] = self.shift(parts[y], self.value)
        return parts


@cheat("a wrong share of an output's MAC")
class WrongOutputMac(ToClient):
    def instead(self, parts: Arrays, y: int, mac: int) -> Arrays:
        parts[mac] = self.shift(parts[mac], self.value)
        return parts


@cheat("a wrong share of the key to the client")
class WrongOutputKey(ToClient):
    def instead(self, parts: Arrays, y: int, mac: int) -> Arrays:
        self.other = Seed(self.rng.randbytes(SEED_BYTES))
        parts[-1] = to_words(bytes(self.other))
        return parts


@cheat("a wrong share of the key, and the MAC that goes with the right output")
class Probe(WrongOutputKey):
    """It would be accepted exactly if the output is what the cheat guesses, and so tell; here the guess is right."""

    def instead(self, parts: Arrays, y: int, mac: int) -> Arrays:
        super().instead(parts, y, mac)
        own = self.world.runs[self.puppet]._check._context.unit  # type: ignore[union-attr]
        case, outputs = self.world.case, len(self.world.case.program.outputs)
        for k in range(outputs):
            # Up to the unit by which a truncation may be off.
            guess = field.scale(case.wanted[k], key_share(self.other) - own)
            parts[outputs + k] = field.add(parts[outputs + k], guess)
        return parts


@cheat("an output that would do if the key were 1")
class KeyOne(ToClient):
    def instead(self, parts: Arrays, y: int, mac: int) -> Arrays:
        parts[y], parts[mac] = self.shift(parts[y], self.value), self.shift(parts[mac], self.value)
        return parts


@cheat("an output that would do if the key were the cheat's own share")
class KeyOwn(ToClient):
    def instead(self, parts: Arrays, y: int, mac: int) -> Arrays:
        own = self.world.runs[self.puppet]._check._context.unit  # type: ignore[union-attr]
        parts[y], parts[mac] = self.shift(parts[y], self.value), self.shift(parts[mac], own * self.value)
        return parts


@cheat("output, MAC and key, all times the same")
class Scaled(ToClient):
    """The key is told as a seed: of its number, the words may be multiplied, or nothing."""

    def instead(self, parts: Arrays, y: int, mac: int) -> Arrays:
        factor, key = self.rng.randrange(2, field.P), self.rng.random() < 0.5
        return [*(field.scale(p, factor) for p in parts[:-1]), field.scale(parts[-1], factor if key else 1)]


@cheat("nothing but zeros to the client")
class Zeros(ToClient):
    def instead(self, parts: Arrays, y: int, mac: int) -> Arrays:
        return [np.zeros_like(part) for part in parts]


@cheat("a bit of what goes to the client")
class FlipOutput(ToClient):
    def instead(self, parts: Arrays, y: int, mac: int) -> Arrays:
        k = self.rng.randrange(len(parts))
        parts[k] = flipped(parts[k], self.rng)
        return parts


@cheat("output and MAC exchanged")
class Exchanged(ToClient):
    def instead(self, parts: Arrays, y: int, mac: int) -> Arrays:
        parts[y], parts[mac] = parts[mac], parts[y]
        return parts


@cheat("too little to the client")
class TooLittle(ToClient):
    def instead(self, parts: Arrays, y: int, mac: int) -> Arrays:
        if self.rng.random() < 0.5:
            return parts[:-1]
        k = self.rng.randrange(len(parts))
        parts[k] = parts[k].reshape(-1)[:-1]
        return parts


# -- the dealer's links ------------------------------------------------------------------------------------------------


class Link(Strategy):
    """All parties are honest, or some are not: what the dealer sent does not arrive as it was."""

    parties = False

    def deal(self, links: Links) -> None:
        self.world.touched = True
        self.change(links)

    def change(self, links: Links) -> None:
        raise NotImplementedError


@cheat("a bit of a party's seed")
class LinkSeed(Link):
    def change(self, links: Links) -> None:
        k = self.rng.randrange(len(links.seeds))
        links.seeds[k] = Seed(flipped(bytes(links.seeds[k]), self.rng))


@cheat("two parties' seeds exchanged")
class LinkSeeds(Link):
    def change(self, links: Links) -> None:
        k, m = self.rng.sample(range(len(links.seeds)), 2)
        links.seeds[k], links.seeds[m] = links.seeds[m], links.seeds[k]


@cheat("a bit of a correction")
class LinkCorrection(Link):
    def change(self, links: Links) -> None:
        k = self.rng.choice(written(links))
        links.corrections[k] = flipped(links.corrections[k], self.rng)


@cheat("corrections that cancel")
class LinkCorrections(Link):
    def change(self, links: Links) -> None:
        value = self.constant()
        for k, sign in zip(self.rng.choices(written(links), k=2), (1, -1), strict=True):
            array = links.corrections[k]
            links.corrections[k] = field.add(array, at(array.size, -1 if sign < 0 else 0, sign * value))


class LinkClient(Link):
    """To the client: its part starts with seeds, by input, and then has a mask for each output and for each MAC."""

    group: ClassVar[int]

    def change(self, links: Links) -> None:
        inputs, outputs = len(self.world.case.program.supplied), len(self.world.case.program.outputs)
        bounds = [0, inputs, inputs + outputs, inputs + 2 * outputs, inputs + 2 * outputs + 1]
        k = self.rng.randrange(bounds[self.group], bounds[self.group + 1])
        self.world.deviated = True
        links.client[k] = flipped(links.client[k], self.rng)
        if isinstance(links.client[k], np.ndarray) and not field.is_reduced(links.client[k]):
            links.client[k] = np.asarray(links.client[k] % np.uint64(field.P))


def written(links: Links) -> list[int]:
    """The corrections that have elements."""
    return [k for k, array in enumerate(links.corrections) if array.size]


@cheat("a bit of the client's seeds")
class LinkInputs(LinkClient):
    group = 0


@cheat("a bit of the client's masks of outputs")
class LinkOutputs(LinkClient):
    group = 1


@cheat("a bit of the client's masks of MACs")
class LinkMacs(LinkClient):
    group = 2


@cheat("a bit of the client's commitments to the key")
class LinkCommitments(LinkClient):
    group = 3


@cheat("the masks of another run, to the client")
class LinkOther(Link):
    def change(self, links: Links) -> None:
        self.world.deviated = True
        links.client[:] = [
            field.add(part, np.ones_like(part)) if isinstance(part, np.ndarray) else self.rng.randbytes(len(part))
            for part in links.client
        ]


@cheat("another digest of the client's masks, to one party")
class LinkDigest(Link):
    def change(self, links: Links) -> None:
        self.world.deviated = True
        links.digests[self.rng.choice(self.world.honest)] = digest([b"other"])


@cheat("a wrong share of a stored tensor")
class LinkStored(Link):
    """At one party, from a wrong seed when it was uploaded."""

    stored = True

    def change(self, links: Links) -> None:
        held = links.held[self.rng.randrange(len(links.held))]
        name = self.rng.choice(sorted(held))
        share: Any = held[name].share
        changed = field.add(share.reshape(-1), at(share.size, 0, self.constant())).reshape(share.shape)
        held[name] = Value(held[name].public, changed)
