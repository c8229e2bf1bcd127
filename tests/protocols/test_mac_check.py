"""The MAC check on its own: what passes, what does not and with which error, and why it is made as it is."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.cost import CHECK_ELEMENTS, CHECK_ROUNDS, WORDS
from mpc.errors import MacCheckError, ProgramError, TesseraError
from mpc.operation import PartyContext
from mpc.rings import field
from mpc.rings.prg import Seed
from mpc.security import Security
from protocols.randomness.streams import key_share, key_stream
from protocols.readings import mac_check
from protocols.readings.dealer import deal
from protocols.readings.mac_check import MacCheck, from_words, to_words
from protocols.readings.memory import run_in_memory

Raw = np.ndarray
Tamper = Callable[[int, int, int, Raw], Raw]
COIN, COMMIT, SIGMA = range(3)
"""Rounds of a check after an opening."""


def uniform(rng: random.Random, size: int) -> Raw:
    return np.array([rng.randrange(field.P) for _ in range(size)], np.uint64)


class Run:
    """Parties that have opened some vectors, of which they hold shares of MACs."""

    def __init__(self, parties: int = 3, sizes: Sequence[int] = (4, 2), seed: int = 0, session: bytes = b"run") -> None:
        rng = random.Random(seed)
        shares = [rng.randrange(field.P) for _ in range(parties)]
        self.key = sum(shares) % field.P
        self.checks = [MacCheck(PartyContext(i, parties, unit=share), session) for i, share in enumerate(shares)]
        self.values = [uniform(rng, size) for size in sizes]
        self.macs: list[list[Raw]] = [[] for _ in shares]
        for values in self.values:
            rest = field.scale(values, self.key)
            for macs in self.macs[1:]:
                macs.append(uniform(rng, values.size))
                rest = field.subtract(rest, macs[-1])
            self.macs[0].append(rest)

    def open(self, *, errors: dict[tuple[int, int], int] | None = None, only: int | None = None) -> None:
        """The openings; with errors at (round, element), for everyone or for one party."""
        for number, values in enumerate(self.values):
            if number == 0:
                commitments = [check.first_commitment() for check in self.checks]
                assert all(c is not None and c.size == WORDS for c in commitments)
                for i, check in enumerate(self.checks):
                    check.take_commitments([c for j, c in enumerate(commitments) if j != i])  # type: ignore[misc]
                    assert check.first_commitment() is None
            for i, check in enumerate(self.checks):
                seen = values.copy()
                for (where, place), error in (errors or {}).items():
                    if where == number and only in (None, i):
                        seen[place] = (int(seen[place]) + error) % field.P
                check.opened(seen)

    def check(self, tamper: Tamper | None = None) -> list[TesseraError | None]:
        """Per party, what it raised.  ``self.said`` has what was sent, by round and party."""
        exchanges = [c.run(lambda macs=macs: macs) for c, macs in zip(self.checks, self.macs, strict=True)]
        self.said = [[next(exchange)[0] for exchange in exchanges]]
        ended: dict[int, TesseraError | None] = {}
        while not ended:
            number, said, following = len(self.said) - 1, self.said[-1], []
            for i, exchange in enumerate(exchanges):
                received = [
                    tamper(number, j, i, said[j].copy()) if tamper else said[j] for j in range(len(said)) if j != i
                ]
                try:
                    following.append(exchange.send([[vector] for vector in received])[0])
                except StopIteration:
                    ended[i] = None
                except TesseraError as error:
                    ended[i] = error
                    following.append(said[i])
            if not ended:
                self.said.append(following)
        return [ended.get(i) for i in range(len(exchanges))]


@pytest.mark.parametrize("sizes", [(), (1,), (4, 2), (1, 30, 7)])
@pytest.mark.parametrize("parties", [2, 3, 4, 5])
def test_right_values_pass(parties: int, sizes: tuple[int, ...]) -> None:
    run = Run(parties, sizes)
    run.open()
    assert run.check() == [None] * parties
    assert len(run.said) == CHECK_ROUNDS + (not sizes)
    for party in range(parties):
        sent = sum(said[party].size for said in run.said) + (WORDS if sizes else 0)
        assert sent == CHECK_ELEMENTS


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("error", [1, field.P - 1, 1 << 40])
@pytest.mark.parametrize("place", [(0, 0), (0, 3), (1, 1)])
def test_a_wrong_opening_does_not(parties: int, error: int, place: tuple[int, int]) -> None:
    run = Run(parties)
    run.open(errors={place: error})
    for outcome in run.check():
        assert isinstance(outcome, MacCheckError)
        assert "MACs of the opened values are wrong" in str(outcome)


@pytest.mark.parametrize("party", [0, 1, 2])
def test_a_wrong_share_of_a_mac_does_not(party: int) -> None:
    run = Run()
    run.open()
    run.macs[party][1] = field.add(run.macs[party][1], np.array([0, 1], np.uint64))
    assert all("MACs of the opened values are wrong" in str(outcome) for outcome in run.check())


def test_a_wrong_share_of_the_key_does_not() -> None:
    run = Run()
    run.open()
    context: Any = run.checks[1]._context
    context.unit = (context.unit + 1) % field.P
    assert all("MACs of the opened values are wrong" in str(outcome) for outcome in run.check())


def test_parties_that_saw_different_things_notice_before_they_make_a_sigma() -> None:
    run = Run()
    run.open(errors={(1, 0): 1}, only=2)
    outcomes = run.check()
    assert all("were not sent the same" in str(outcome) for outcome in outcomes)
    assert len(run.said) == COIN + 1


@pytest.mark.parametrize("what", ["an input", "a commitment to a coin", "another session"])
def test_all_that_all_must_have_alike_is_compared(what: str) -> None:
    run = Run(2, ())
    if what == "an input":
        run.checks[0].note(b"masked input")
        run.checks[1].note(b"another")
    if what == "another session":
        run.checks[1] = MacCheck(run.checks[1]._context, b"other")

    def tamper(number: int, sender: int, receiver: int, buffer: Raw) -> Raw:
        if number == 0 and (sender, receiver) == (0, 1) and what == "a commitment to a coin":
            buffer[0] ^= np.uint64(1)
        return buffer

    assert all("were not sent the same" in str(outcome) for outcome in run.check(tamper))


def from_party(sender: int, number: int, change: Callable[[Raw], Any], receiver: int | None = None) -> Tamper:
    def tamper(round_: int, sender_: int, receiver_: int, buffer: Raw) -> Raw:
        if (round_, sender_) == (number, sender) and receiver in (None, receiver_):
            changed = change(buffer)
            return buffer if changed is None else changed
        return buffer

    return tamper


def flip(place: int, bit: int = 0) -> Callable[[Raw], None]:
    def change(buffer: Raw) -> None:
        buffer[place] ^= np.uint64(1 << bit)

    return change


ANOTHER_COIN = "another coin than it had committed"
ANOTHER_VALUE = "another value than it had committed"
NOT_THE_SAME = "were not sent the same"


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (COIN, flip(0), NOT_THE_SAME),
        (COIN, flip(WORDS - 1, 40), NOT_THE_SAME),
        (COIN, flip(WORDS), ANOTHER_COIN),
        (COIN, flip(2 * WORDS - 1, 63), ANOTHER_COIN),
        (COMMIT, flip(3), ANOTHER_VALUE),
        (COMMIT, flip(3, 33), ANOTHER_VALUE),
        (SIGMA, flip(0), ANOTHER_VALUE),
        (SIGMA, flip(WORDS), ANOTHER_VALUE),
        (SIGMA, flip(WORDS, 50), ANOTHER_VALUE),
    ],
)
def test_every_message_of_the_check_is_checked(number: int, change: Any, message: str) -> None:
    for receiver in (None, 2):
        run = Run()
        run.open()
        outcomes = run.check(from_party(0, number, change, receiver))
        assert isinstance(outcomes[2], MacCheckError)
        assert message in str(outcomes[2])
        assert outcomes[0] is None
        assert (outcomes[1] is None) == (receiver == 2)


@pytest.mark.parametrize("number", [COIN, COMMIT, SIGMA])
@pytest.mark.parametrize("change", [lambda b: b[:0], lambda b: b[:-1], lambda b: np.append(b, b[:1])])
def test_every_message_has_its_length(number: int, change: Any) -> None:
    run = Run(2)
    run.open()
    outcomes = run.check(from_party(0, number, change))
    assert isinstance(outcomes[1], ProgramError)


@pytest.mark.parametrize("sigma", [[], [0, 0], [field.P], [2**64 - 1]])
def test_a_sigma_is_one_element_of_the_field(sigma: list[int]) -> None:
    """Even if it is what was committed to: of an empty one the sum would be empty, and nothing wrong with it."""
    run = Run(2)
    run.open(errors={(0, 0): 1})
    nonce = [] if not sigma else [0] * WORDS
    opening = np.array([*sigma, *nonce], np.uint64)
    commitment = to_words(run.checks[0]._commit(b"sigma", 0, opening.tobytes()))

    def tamper(number: int, sender: int, receiver: int, buffer: Raw) -> Raw:
        if sender == 0 and number >= COMMIT:
            return commitment if number == COMMIT else opening
        return buffer

    assert isinstance(run.check(tamper)[1], ProgramError if len(sigma) != 1 else MacCheckError)


def test_a_sigma_has_one_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The right one, in a number outside the field, is none."""
    run = Run(2)
    run.open()
    sigma = run.checks[0]._sigma
    monkeypatch.setattr(run.checks[0], "_sigma", lambda *arguments: sigma(*arguments) + np.uint64(field.P))
    assert ANOTHER_VALUE in str(run.check()[1])


@pytest.mark.parametrize(
    "received", [[], [[]], [[np.zeros(2 * WORDS, np.uint64)]] * 2, [[np.zeros(2 * WORDS, np.uint64)] * 2]]
)
def test_one_message_of_each_other_party(received: list[list[Raw]]) -> None:
    run = Run(2)
    run.open()
    exchange = run.checks[0].run(lambda: run.macs[0])
    next(exchange)
    with pytest.raises(ProgramError):
        exchange.send(received)


@pytest.mark.parametrize("errors", [{(0, 0): 5, (0, 1): -5}, {(0, 2): 5, (1, 0): -5}, {(1, 0): 9, (1, 1): -9}])
def test_why_each_element_has_a_coefficient_of_its_own(
    monkeypatch: pytest.MonkeyPatch, errors: dict[tuple[int, int], int]
) -> None:
    """With the same one for all, errors that cancel go unnoticed."""

    class Same(Seed):
        def derive(self, label: str | bytes) -> Seed:
            return self

        def elements(self, shape: Any) -> Raw:
            return np.full(shape, 12345, np.uint64)

    run = Run()
    run.open(errors=errors)
    assert all(isinstance(outcome, MacCheckError) for outcome in run.check())
    monkeypatch.setattr(mac_check, "Seed", Same)
    run = Run()
    run.open(errors=errors)
    assert run.check() == [None] * 3


def test_coefficients_are_made_of_every_party_s_coin_and_are_new_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []

    class Watched(Seed):
        def __init__(self, key: bytes) -> None:
            made.append(key)
            super().__init__(key)

    monkeypatch.setattr(mac_check, "Seed", Watched)
    for other in (None, 0, 1, 2):
        run = Run()
        for party, check in enumerate(run.checks):
            check._coin = bytes(31) + bytes([party if party != other else 99])
        run.open()
        assert run.check() == [None] * 3
    assert len(made) == 12
    assert len(set(made)) == 4  # the same at all parties of a run
    for _ in range(2):
        run = Run()
        run.open()
        run.check()
    assert len(set(made)) == 6


def test_a_commitment_binds_run_party_and_purpose() -> None:
    context = PartyContext(0, 2, unit=5)
    check, secret = MacCheck(context, b"run"), bytes(32)
    commitment = check._commit(b"coin", 0, secret)
    assert commitment == MacCheck(context, b"run")._commit(b"coin", 0, secret)
    others = [
        check._commit(b"coin", 1, secret),
        check._commit(b"sigma", 0, secret),
        check._commit(b"coin", 0, secret + b"\0"),
        check._commit(b"coin", 0, secret[:-1]),
        MacCheck(context, b"other run")._commit(b"coin", 0, secret),
    ]
    assert len({commitment, *others}) == 6
    # Lengths are part of what is hashed: parts cannot be read as others.
    assert check._hash(b"ab", b"c") != check._hash(b"a", b"bc")


@pytest.mark.parametrize("source", [0, 2])
def test_another_s_commitment_cannot_be_opened(source: int) -> None:
    """Party 1 says what another has said, in all rounds."""
    run = Run()
    run.open()

    def tamper(number: int, sender: int, receiver: int, buffer: Raw) -> Raw:
        return run.said[number][source].copy() if sender == 1 and number > COIN else buffer

    outcomes = run.check(tamper)
    assert ANOTHER_VALUE in str(outcomes[0])
    assert ANOTHER_VALUE in str(outcomes[2])


@given(st.binary(min_size=32, max_size=32))
def test_words_carry_bytes(data: bytes) -> None:
    words = to_words(data)
    assert words.dtype == np.uint64
    assert words.size == WORDS
    assert field.is_reduced(words)
    assert from_words(words) == data


@given(st.lists(st.integers(0, 2**64 - 1), min_size=WORDS, max_size=WORDS))
def test_words_that_stand_for_no_bytes(numbers: list[int]) -> None:
    """So that each 32 bytes have one encoding, and what is none equals nobody's."""
    data = from_words(np.array(numbers, np.uint64))
    if max(numbers) < 2**32:
        assert to_words(data).tolist() == numbers
    else:
        assert data == b""


def test_a_failed_check_tells_the_key() -> None:
    """To the cheat, who knows its error: so key and material must not be used again."""
    run = Run(2, (3,))
    error = 77
    run.open(errors={(0, 1): error})
    assert all(isinstance(outcome, MacCheckError) for outcome in run.check())
    coins = [check._coin for check in run.checks]
    coefficients = Seed(run.checks[1]._hash(b"coefficients", *coins)[:16])
    chi = int(coefficients.derive("round 0").elements(3)[1])
    total = sum(int(said[0]) for said in run.said[SIGMA]) % field.P
    assert -total * pow(chi * error, -1, field.P) % field.P == run.key


def test_a_run_that_passes_does_not() -> None:
    """The honest sigma is minus what the others know to be theirs, whatever the key."""
    run = Run(2, (3,))
    run.open()
    run.check()
    honest, cheat = (int(said[0]) for said in run.said[SIGMA])
    assert (honest + cheat) % field.P == 0


def test_keys_coins_and_nonces_are_new_for_every_run(secure: Any) -> None:
    x = secure.secret((2,))
    program = secure.program(x * x)
    dealings = [deal(program, 2, {}, Security.MALICIOUS) for _ in range(4)]
    keys = [key_share(key_stream(seed)) for dealing in dealings for seed in dealing.seeds]
    assert len(set(keys)) == 8
    sent: list[bytes] = []

    def listen(number: int, sender: int, receiver: int, buffer: Raw) -> Raw:
        part = {0: buffer[2:], 1: buffer[WORDS:], 3: buffer[1:]}.get(number)
        if part is not None:
            sent.append(part.tobytes())
        return buffer

    seeds = secure.seeds(2, 0)
    for _ in range(4):  # even from the same seeds
        run_in_memory(program, [field.zeros(2)], security=Security.MALICIOUS, seeds=seeds, tamper=listen)
    assert len(sent) == 4 * 2 * 3
    assert len(set(sent)) == len(sent)


def test_no_secret_is_shown() -> None:
    run = Run()
    run.open()
    for check in run.checks:
        shown = repr(check) + str(check)
        assert str(check._context.unit) not in shown
        assert check._coin.hex() not in shown
        assert repr(check._coin) not in shown
        assert "array" not in shown
    run.checks[0]._context.unit += 1
    for outcome in run.check():
        assert str(run.key) not in str(outcome)
