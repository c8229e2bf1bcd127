"""The reveal: the client takes what belongs together, and finds out whatever else it is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.errors import MacCheckError, ProgramError
from mpc.rings import field
from mpc.rings.prg import Seed
from mpc.security import Security
from protocols.randomness.streams import key_share, key_stream
from protocols.readings.mac_check import to_words
from protocols.readings.memory import run_in_memory
from protocols.readings.reveal import key_commitment, masked_types, reveal, revealed_parts

Raw = np.ndarray
Sent = list[list[Raw]]
Y, Z, MAC_Y, MAC_Z, KEY = range(5)
"""What a party sends, of a program with two outputs."""


class Revealed:
    """All that the client gets in an honest run, to be changed."""

    def __init__(self, secure: Any, parties: int, security: Security = Security.MALICIOUS) -> None:
        x = secure.secret((2, 2))
        self.program = secure.program(x * 2, x.sum(axis=0))
        self.security = security
        value = fixed_point.encode(np.array([[0.5, -1.0], [2.0, 3.0]]), 16)
        run = run_in_memory(self.program, [value], parties=parties, security=security)
        self.wanted = run.outputs
        self.sent: Sent = [[part.copy() for part in parts] for parts in run.shares]
        self.masks = [*run.dealing.output_masks, *run.dealing.output_mac_masks]
        self.commitments = list(run.dealing.key_commitments)
        self.streams = [key_stream(seed) for seed in run.dealing.seeds]
        self.key = sum(map(key_share, self.streams)) % field.P

    def open(self) -> list[Raw]:
        return reveal(self.program, self.security, self.sent, self.masks, self.commitments)

    def shift(self, party: int, part: int, value: int) -> None:
        array = self.sent[party][part].reshape(-1)
        array[-1] = (int(array[-1]) + value) % field.P


@pytest.fixture(params=[2, 3])
def revealed(secure: Any, request: Any) -> Revealed:
    return Revealed(secure, request.param)


@pytest.mark.parametrize("security", list(Security))
@pytest.mark.parametrize("parties", [2, 3, 5])
def test_what_belongs_together_is_accepted(secure: Any, parties: int, security: Security) -> None:
    revealed = Revealed(secure, parties, security)
    y, z = revealed.open()
    assert fixed_point.decode(y, revealed.program.nodes[revealed.program.outputs[0]].type.fraction_bits).tolist() == [
        [1.0, -2.0],
        [4.0, 6.0],
    ]
    assert fixed_point.decode(z, 16).tolist() == [2.5, 2.0]
    assert [part.shape for part in revealed.sent[0]] == [p.shape for p in revealed_parts(revealed.program, security)]
    assert [mask.shape for mask in revealed.masks] == [t.shape for t in masked_types(revealed.program, security)]


@pytest.mark.parametrize("part", [Y, Z, MAC_Y, MAC_Z])
@pytest.mark.parametrize("value", [1, -1, 1 << 59])
def test_a_wrong_share_is_not(revealed: Revealed, part: int, value: int) -> None:
    for party in range(len(revealed.sent)):
        revealed.shift(party, part, value)
        with pytest.raises(MacCheckError, match="not given out"):
            revealed.open()
        revealed.shift(party, part, -value)
    assert np.array_equal(revealed.open()[0], revealed.wanted[0])


@pytest.mark.parametrize("part", [Y, Z, MAC_Y, MAC_Z])
def test_nor_is_a_wrong_mask(revealed: Revealed, part: int) -> None:
    """From a dealer's link; that the client asked about the masks it has is not the reveal's to know."""
    revealed.masks[part] = field.add(revealed.masks[part], np.array(1, np.uint64))
    with pytest.raises(MacCheckError):
        revealed.open()


@pytest.mark.parametrize("assumed", [0, 1, 2])
def test_nor_is_an_output_that_some_other_key_would_do_for(revealed: Revealed, assumed: int) -> None:
    revealed.shift(1, Y, 5)
    revealed.shift(1, MAC_Y, 5 * assumed)
    with pytest.raises(MacCheckError):
        revealed.open()


def test_nor_is_an_output_that_would_do_for_the_cheats_own_share(revealed: Revealed) -> None:
    revealed.shift(1, Y, 5)
    revealed.shift(1, MAC_Y, 5 * key_share(revealed.streams[1]))
    with pytest.raises(MacCheckError):
        revealed.open()


def test_who_knows_the_key_can_forge(revealed: Revealed) -> None:
    """So all rests on the key, which no n - 1 parties know."""
    revealed.shift(1, Y, 5)
    revealed.shift(1, MAC_Y, 5 * revealed.key)
    y, z = revealed.open()
    difference = field.subtract(y, revealed.wanted[0])
    assert difference.tolist() == [[0, 0], [0, 5]]
    assert np.array_equal(z, revealed.wanted[1])


@pytest.mark.parametrize("bit", [0, 31])
@pytest.mark.parametrize("place", [0, 3])
def test_another_share_of_the_key_is_not_accepted(revealed: Revealed, place: int, bit: int) -> None:
    for party in range(len(revealed.sent)):
        revealed.sent[party][KEY][place] ^= np.uint64(1 << bit)
        with pytest.raises(MacCheckError, match=f"party {party} sent another share of the MAC key"):
            revealed.open()
        revealed.sent[party][KEY][place] ^= np.uint64(1 << bit)
    revealed.open()


@pytest.mark.parametrize("number", [1 << 32, field.P - 1])
def test_nor_are_words_that_are_no_share(revealed: Revealed, number: int) -> None:
    revealed.sent[0][KEY][0] = number
    with pytest.raises(MacCheckError, match="another share of the MAC key"):
        revealed.open()


def test_nor_is_another_party_s_share_of_the_key(revealed: Revealed) -> None:
    revealed.sent[0][KEY], revealed.sent[1][KEY] = revealed.sent[1][KEY], revealed.sent[0][KEY]
    with pytest.raises(MacCheckError, match="another share of the MAC key"):
        revealed.open()


@pytest.mark.parametrize("right", [True, False])
def test_a_guess_of_the_output_is_not_answered(revealed: Revealed, right: bool) -> None:
    """With another key share, and a MAC that goes with y = guess: accepted or not would tell whether it is.

    With the commitments to the key's shares it is refused either way.
    """
    other = Seed(bytes(range(16)))
    shift = key_share(other) - key_share(revealed.streams[1])
    for part, output in ((MAC_Y, revealed.wanted[0]), (MAC_Z, revealed.wanted[1])):
        guess = output if right else field.add(output, np.array(1, np.uint64))
        revealed.sent[1][part] = field.add(revealed.sent[1][part], field.scale(guess, shift))
    revealed.sent[1][KEY] = to_words(bytes(other))
    with pytest.raises(MacCheckError, match="party 1 sent another share of the MAC key"):
        revealed.open()
    # It is the commitments that do it.
    revealed.commitments[1] = key_commitment(1, other)
    if right:
        assert np.array_equal(revealed.open()[0], revealed.wanted[0])
    else:
        with pytest.raises(MacCheckError, match="not given out"):
            revealed.open()


def test_commitments_to_the_key_bind_the_party() -> None:
    stream = Seed(bytes(16))
    assert len({key_commitment(party, stream) for party in range(5)}) == 5
    assert key_commitment(0, stream) != key_commitment(0, Seed(bytes(15) + b"\1"))


CHANGES: dict[str, Callable[[Sent], Any]] = {
    "a part too few": lambda sent: sent[0].pop(),
    "a part too many": lambda sent: sent[0].append(sent[0][0]),
    "nothing": lambda sent: sent[0].clear(),
    "another shape": lambda sent: sent[0].__setitem__(Y, sent[0][Y].reshape(-1)),
    "parts in another order": lambda sent: sent[0].reverse(),
    "an element too few": lambda sent: sent[0].__setitem__(Z, sent[0][Z][:1]),
    "a key too short": lambda sent: sent[0].__setitem__(KEY, sent[0][KEY][:-1]),
    "an empty key": lambda sent: sent[0].__setitem__(KEY, sent[0][KEY][:0]),
    "no element of the field": lambda sent: sent[0][MAC_Y].__setitem__((0, 0), field.P),
    "a large number": lambda sent: sent[0][KEY].__setitem__(0, 2**64 - 1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_form_is_refused(revealed: Revealed, name: str) -> None:
    CHANGES[name](revealed.sent)
    with pytest.raises(ProgramError, match="other shapes"):
        revealed.open()


def test_errors_show_no_secret(revealed: Revealed) -> None:
    revealed.shift(0, Y, 1)
    with pytest.raises(MacCheckError) as caught:
        revealed.open()
    assert str(revealed.key) not in str(caught.value)
    assert not any(str(int(v)) in str(caught.value) for v in revealed.wanted[0].reshape(-1))


def test_without_macs_a_wrong_share_is_a_wrong_result(secure: Any) -> None:
    revealed = Revealed(secure, 2, Security.SEMI_HONEST)
    revealed.shift(1, Y, 5)
    assert not np.array_equal(revealed.open()[0], revealed.wanted[0])
