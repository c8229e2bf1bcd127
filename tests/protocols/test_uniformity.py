"""Whatever leaves a process looks uniform in the field, and the same for any secret.

The runs are made from fixed seeds, so that a test either always passes or always fails: at a significance of 1e-6 a
correct system has one chance in a million of failing, once and for all.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from mpc import fixed_point
from mpc.cost import WORDS
from mpc.rings import field
from mpc.security import Security
from protocols.readings.memory import MemoryStore, run_in_memory

SIGNIFICANCE = 1e-6
RUNS = 40
SECRETS = {"zero": 0.0, "one unit": 2.0**-16, "largest": 4.0, "smallest": -4.0}

Raw = npt.NDArray[np.uint64]


def p_values(numbers: Raw) -> dict[str, float]:
    """Of the hypothesis that these are independent and uniform in the field."""
    top = np.bincount((numbers >> np.uint64(55)).astype(np.int64), minlength=64)
    low = np.bincount((numbers & np.uint64(63)).astype(np.int64), minlength=64)
    middle = np.bincount(((numbers >> np.uint64(28)) & np.uint64(63)).astype(np.int64), minlength=64)
    steps = field.subtract(numbers[1:], numbers[:-1])  # independent and uniform as well: finds masks used twice
    return {
        "steps": float(stats.kstest(steps / float(field.P), "uniform").pvalue),
        "order": float(stats.kstest(numbers / float(field.P), "uniform").pvalue),
        "high bits": float(stats.chisquare(top).pvalue),
        "middle bits": float(stats.chisquare(middle).pvalue),
        "low bits": float(stats.chisquare(low).pvalue),
        "neighbours": float(stats.spearmanr(numbers[:-1], numbers[1:]).pvalue),
    }


def looks_uniform(numbers: Raw) -> bool:
    return min(p_values(numbers).values()) > SIGNIFICANCE


def a_program(secure: Any) -> Any:
    """Every kind of step: products, truncation, both kinds of polynomials, a Fourier series, stored weights."""
    x = secure.secret((10, 5))
    w = secure.stored("w", (5, 5))
    hidden = (x @ w + 0.5).sigmoid(interval=(-8, 8))
    powers = ((hidden * 2 - 1) ** 3).within(-1, 1)
    return secure.program((powers * hidden).truncate(10), (x * x).truncate(12), x)


COUNTS = pytest.mark.parametrize("parties", [2, pytest.param(3, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def seen(secure: Any) -> Callable[[int], dict[str, dict[str, Raw]]]:
    """By number of parties: by secret, every kind of message, of all runs together."""
    program = a_program(secure)

    @functools.cache
    def of(parties: int) -> dict[str, dict[str, Raw]]:
        collected: dict[str, dict[str, Raw]] = {}
        weights = {"w": fixed_point.encode(np.full((5, 5), 0.25), 14)}
        store = MemoryStore("model", weights, parties, secure.seeds(parties, 10**6))
        for name, value in SECRETS.items():
            kinds: dict[str, list[Raw]] = {}
            for number in range(RUNS):
                # Seeds differ between secrets: with the same ones, masks would be the same as well.
                seeds = secure.seeds(parties, number + RUNS * list(SECRETS).index(name))
                run = secure.watch(program, [fixed_point.encode(np.full((10, 5), value), 16)], parties, seeds, store)
                kinds.setdefault("masked inputs", []).append(run.masked[0].reshape(-1))
                for k, buffers in enumerate(run.sent):
                    opened = field.zeros(buffers[0].shape)
                    for i, buffer in enumerate(buffers):
                        kinds.setdefault(f"round {k} from party {i}", []).append(buffer)
                        opened = field.add(opened, buffer)
                    kinds.setdefault(f"opened in round {k}", []).append(opened)
                for i, outputs in enumerate(run.shares):
                    kinds.setdefault(f"outputs of party {i}", []).extend(o.reshape(-1) for o in outputs)
                for k, correction in enumerate(run.dealing.corrections):
                    kinds.setdefault(f"correction {k}", []).append(correction)
            collected[name] = {kind: np.concatenate(parts) for kind, parts in kinds.items()}
        return collected

    return of


@pytest.mark.sampled(3)
@COUNTS
@pytest.mark.parametrize("secret", SECRETS)
def test_all_that_is_sent_is_uniform(seen: Any, secret: str, parties: int) -> None:
    kinds = seen(parties)[secret]
    assert len(kinds) > 12
    failing = {kind: p_values(numbers) for kind, numbers in kinds.items() if not looks_uniform(numbers)}
    assert not failing


@COUNTS
def test_all_that_is_sent_is_the_same_for_any_secret(seen: Any, parties: int) -> None:
    reference = seen(parties)["zero"]
    for secret in SECRETS:
        if secret != "zero":
            for kind, numbers in seen(parties)[secret].items():
                assert stats.ks_2samp(numbers, reference[kind]).pvalue > SIGNIFICANCE, (secret, kind)


def test_the_shares_of_all_but_one_party_say_nothing(seen: Any) -> None:
    """What two of three parties send, added up, is still uniform."""
    for secret in SECRETS:
        kinds = seen(3)[secret]
        for pair in ((0, 1), (0, 2), (1, 2)):
            first, second = (kinds[f"outputs of party {i}"] for i in pair)
            assert looks_uniform(field.add(first, second))


def test_the_whole_result_is_right_all_the_same(secure: Any) -> None:
    program = secure.program(secure.secret((50,)) * 2)
    x = fixed_point.encode(np.full(50, 1.5), 16)
    run = secure.watch(program, [x], 3, secure.seeds(3, 0))
    assert fixed_point.decode(run.outputs[0], program.nodes[-1].type.fraction_bits).tolist() == [3.0] * 50


@pytest.mark.parametrize(
    "leak",
    [
        lambda a, x: field.add(x, a >> np.uint64(4)),  # a mask of 57 bits
        lambda a, x: field.add(x, a & np.uint64(2**61 - 2)),  # an even mask
        lambda a, x: field.add(x, np.repeat(a[::2], 2)),  # each mask used twice
        lambda a, x: np.where(a < np.uint64(2**60), field.add(x, a), a),  # only half of them masked
        lambda a, x: x,
    ],
)
def test_the_tests_would_notice(leak: Any) -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, field.P, 2000, dtype=np.uint64)
    x = field.from_signed(np.where(np.arange(2000) % 2 == 0, 2**58, -(2**58)))
    assert not looks_uniform(leak(a, x))
    assert looks_uniform(field.add(a, x))


# -- malicious security ------------------------------------------------------------------------------------------------

SMALL_RUNS = 320
"""Of a program of a few elements: what there is one of in a run needs many of them."""


@pytest.fixture(scope="module")
def fixed_coins() -> Any:
    """Session, coins and nonces come from the system's generator: here from a counter, as seeds do."""
    count = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secrets.token_bytes", lambda n: hashlib.sha512(b"%d" % next(count)).digest()[:n])
        yield


def added(arrays: Any) -> Raw:
    total = field.zeros(arrays[0].shape)
    for array in arrays:
        total = field.add(total, array)
    return total


def malicious_views(secure: Any, program: Any, value: Any, parties: int, numbers: range, store: Any) -> dict[str, Raw]:
    """Every kind of number of malicious runs: sent, dealt, or held by a party; and held by all but one, added up."""
    kinds: dict[str, list[Raw]] = {}

    def add(kind: str, array: Raw) -> None:
        kinds.setdefault(kind, []).append(np.asarray(array).reshape(-1).copy())

    for number in numbers:
        sent: dict[tuple[int, int], Raw] = {}

        def listen(k: int, sender: int, receiver: int, buffer: Raw, sent: Any = sent) -> Raw:
            sent[k, sender] = buffer.copy()
            return buffer

        run = run_in_memory(
            program, [value], parties=parties, store=store, security=Security.MALICIOUS, tamper=listen,
            seeds=secure.seeds(parties, number),
        )  # fmt: skip
        sigma_round = max(k for k, _ in sent)
        coalitions = [[i for i in range(parties) if i != left] for left in range(parties)]
        for k in range(program.rounds):
            # Behind the first opening come commitments, which are hashes.
            shares = [sent[k, i][: sent[k, i].size - (WORDS if k == 0 else 0)] for i in range(parties)]
            macs = [r._mac_shares[k] for r in run.runs]
            add(f"opened in round {k}", added(shares))
            for left, others in enumerate(coalitions):
                add(f"shares of round {k} without {left}", added([shares[i] for i in others]))
                add(f"MACs of round {k} without {left}", added([macs[i] for i in others]))
        for k, correction in enumerate(run.dealing.corrections):
            add(f"correction {k}", correction)
        for left, others in enumerate(coalitions):
            for k in range(2 * len(program.outputs)):
                add(f"part {k} of outputs without {left}", added([run.shares[i][k] for i in others]))
            units = [np.array([run.runs[i]._check._context.unit], np.uint64) for i in others]
            add(f"key without {left}", added(units))
            add(f"sigma without {left}", added([sent[sigma_round, i][:1] for i in others]))
        for i in range(parties):
            add(f"sigma of {i}", sent[sigma_round, i][:1])
            add(f"share of the key of {i}", np.array([run.runs[i]._check._context.unit], np.uint64))
    return {kind: np.concatenate(parts) for kind, parts in kinds.items()}


@pytest.fixture(scope="module")
def views(secure: Any, fixed_coins: Any) -> Callable[[int], dict[str, dict[str, Raw]]]:
    """By number of parties: by secret."""
    program = a_program(secure)
    weights = {"w": fixed_point.encode(np.full((5, 5), 0.25), 14)}

    @functools.cache
    def of(parties: int) -> dict[str, dict[str, Raw]]:
        collected = {}
        store = MemoryStore("model", weights, parties, secure.seeds(parties, 2 * 10**6))
        for s, (name, secret) in enumerate(SECRETS.items()):
            value = fixed_point.encode(np.full((10, 5), secret), 16)
            numbers = range(10**4 + s * RUNS, 10**4 + (s + 1) * RUNS)
            collected[name] = malicious_views(secure, program, value, parties, numbers, store)
        return collected

    return of


@pytest.fixture(scope="module")
def small_views(secure: Any, fixed_coins: Any) -> dict[str, dict[str, Raw]]:
    x = secure.secret((1,))
    program = secure.program(x * x * x)
    found = {}
    for s, (name, secret) in enumerate(SECRETS.items()):
        numbers = range(10**5 + s * SMALL_RUNS, 10**5 + (s + 1) * SMALL_RUNS)
        value = fixed_point.encode(np.full(1, secret), 16)
        found[name] = malicious_views(secure, program, value, 2, numbers, None)
    return found


def once_a_run(kind: str) -> bool:
    return kind.startswith(("key", "share of the key", "sigma"))


@pytest.mark.sampled(3)
@COUNTS
@pytest.mark.parametrize("secret", SECRETS)
def test_with_macs_all_but_one_party_see_uniform_numbers(views: Any, secret: str, parties: int) -> None:
    kinds = {kind: numbers for kind, numbers in views(parties)[secret].items() if not once_a_run(kind)}
    assert sum(kind.startswith("MACs") for kind in kinds) >= 3 * parties
    failing = {kind: p_values(numbers) for kind, numbers in kinds.items() if not looks_uniform(numbers)}
    assert not failing


@COUNTS
def test_with_macs_what_they_see_is_the_same_for_any_secret(views: Any, parties: int) -> None:
    reference = views(parties)["zero"]
    for secret in SECRETS:
        if secret != "zero":
            for kind, numbers in views(parties)[secret].items():
                assert stats.ks_2samp(numbers, reference[kind]).pvalue > SIGNIFICANCE, (secret, kind)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("secret", SECRETS)
def test_key_shares_and_sigmas_are_uniform(small_views: Any, secret: str) -> None:
    kinds = {kind: numbers for kind, numbers in small_views[secret].items() if once_a_run(kind)}
    assert len(kinds) == 8
    failing = {kind: p_values(numbers) for kind, numbers in kinds.items() if not looks_uniform(numbers)}
    assert not failing


def test_key_shares_and_sigmas_are_the_same_for_any_secret(small_views: Any) -> None:
    for secret in SECRETS:
        for kind, numbers in small_views[secret].items():
            if secret != "zero":
                assert stats.ks_2samp(numbers, small_views["zero"][kind]).pvalue > SIGNIFICANCE, (secret, kind)


def test_the_sigmas_of_all_parties_add_up_to_nothing(small_views: Any) -> None:
    """So what the last one says is known to the others beforehand."""
    for kinds in small_views.values():
        assert not field.add(kinds["sigma of 0"], kinds["sigma of 1"]).any()
