"""Three parties on workers, with MACs: who tells two others different things is named, as among parties themselves."""

from __future__ import annotations

import pytest
from cheats import equivocation, evidence, off_by_one, sign
from msgspec.structs import replace

from benchmarks.session import as_predicted
from mpc.errors import CaughtCheating, PeerLost, ProtocolViolation
from parties.messages.evidence import Contradiction, verify
from parties.messages.runs import Disputed, Opening
from parties.servers import elsewhere
from parties.worker.computation import Computation
from protocols.readings.mac_check import from_words

from .stocked import program, right
from .workforces import on_workers

CHEAT = "party1"
ROUNDS = 3
"""Openings of ``program``; the check's first round has that number."""


@pytest.fixture
async def crewed(strict3, monkeypatch):
    """Three parties with a worker each; its last words are heard at once."""
    monkeypatch.setattr(elsewhere, "LAST_WORDS", 0.2)
    await on_workers(strict3, count=1)
    return strict3


def cheating(monkeypatch, change, *victims):
    """From now on the cheat's worker sends ``change(computation, message, buffers)`` to these parties, by index."""
    honest = Computation.meet

    async def meet(self, message):
        await honest(self, message)
        if self._me.name != CHEAT:
            return
        for victim in victims:
            send = self._links[victim].send

            def said(m, buffers=(), send=send):
                return sum(send(*each) for each in change(self, m, list(buffers)))

            self._links[victim].send = said

    monkeypatch.setattr(Computation, "meet", meet)


async def named(site, monkeypatch, error, match=None):
    """The run fails with that error of the cheat, and the next one, in which it is honest, is right."""
    async with site.client() as client:
        with pytest.raises(error, match=match) as caught:
            await client.reveal(program(client))
        assert type(caught.value) is error
        assert caught.value.peer == CHEAT, str(caught.value)
        await site.settled()
        monkeypatch.undo()
        await right(client)


async def test_honest_ones(crewed):
    async with crewed.client() as client:
        await right(client)
        assert as_predicted(client.last_run)


async def test_one_that_tells_two_others_different_things(crewed, monkeypatch):
    runs = {}
    change = equivocation(crewed, CHEAT, ROUNDS, lambda run: runs[run]._testimony)

    def changed(computation, message, buffers):
        runs[message.run] = computation
        return change(message, buffers)

    cheating(monkeypatch, changed, 2)
    await named(crewed, monkeypatch, CaughtCheating)
    for honest in ("party0", "party2"):
        await crewed.until(lambda: evidence(crewed, honest))  # noqa: B023 - awaited here
        (piece,) = evidence(crewed, honest)
        assert isinstance(piece, Contradiction)
        assert verify(piece, crewed.cluster).culprit == CHEAT


async def test_unsigned(crewed, monkeypatch):
    def change(computation, message, buffers):
        other = isinstance(message, Opening) and message.round == 1
        return [(message, [off_by_one(buffers[0])] if other else buffers)]

    cheating(monkeypatch, change, 2)
    await named(crewed, monkeypatch, CaughtCheating)


async def test_one_that_says_it_has_seen_something_else(crewed, monkeypatch):
    honest = Computation._step

    async def lying(self, exchange, testimony, number, received):
        message, outgoing = await honest(self, exchange, testimony, number, received)
        if self._me.name == CHEAT and number == ROUNDS:
            outgoing = [outgoing[0].copy()]
            outgoing[0][0] ^= 1
            said = replace(testimony._by_party[CHEAT].seen.said, seen=from_words(outgoing[0][:8]))
            message = replace(message, signature=sign(crewed, CHEAT, said))
        return message, outgoing

    monkeypatch.setattr(Computation, "_step", lying)
    await named(crewed, monkeypatch, CaughtCheating)


@pytest.mark.parametrize(
    ("number", "joined", "error", "match"),
    [
        (ROUNDS + 1, False, ProtocolViolation, "all have seen the same"),
        # As if another had begun: the honest go on, and hear nothing more of it.
        (ROUNDS + 1, True, PeerLost, "no opening"),
        (ROUNDS, False, ProtocolViolation, "nothing to dispute"),
    ],
)
async def test_one_that_disputes_what_nobody_else_does(crewed, monkeypatch, number, joined, error, match):
    def change(computation, message, buffers):
        if isinstance(message, Opening) and message.round >= number:
            seen = computation._testimony.seen
            disputed = Disputed(run=message.run, joined=joined, statements=seen)
            return [(disputed, ())] if message.round == number else []
        return [(message, buffers)]

    cheating(monkeypatch, change, 0, 2)
    await named(crewed, monkeypatch, error, match)
