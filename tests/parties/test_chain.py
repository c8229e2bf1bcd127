"""Chains: runs that each read what the one before has kept, and draw the next part of data that owners have stored."""

import re

import numpy as np
import pytest

from mpc.errors import NotPermitted, PeerError, ProgramError, RemoteError, UsageError
from mpc.operation import Stored
from parties import DataSet
from parties.client.explanation import explained
from parties.messages.runs import Opening
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import graph_of, leaf

X = np.arange(1.0, 8.0) / 8
"""Seven rows."""


async def begun(client):
    """A data set, and a state that sums up what is drawn of it."""
    data = await client.upload(DataSet({"x": X}, low=-1, high=1, fraction_bits=16), "data")
    zeros = {"sum": [0.0], "seen": np.zeros(3)}
    ranges = {"sum": (-16, 16), "seen": (-1, 1)}
    state = await client.upload(DataSet(zeros, ranges=ranges, fraction_bits=16), "state")
    return data, state


def link(data, state):
    """The program of one run: the sum so far, and which rows were drawn."""
    x = data.drawn("x", 3)
    return {"sum": (state["sum"] + x.sum()).assumed(-16, 16), "seen": x + state["seen"] * 0.0}


async def test_parts_follow_each_other(site):
    async with site.client() as clinic:
        data, state = await begun(clinic)
        digests, seen = set(), []
        for part in range(7):
            assert state.parts == part
            digests.add(clinic.digest(link(data, state)))
            state = await clinic.keep(link(data, state), "state")
            seen += list(await clinic.reveal(state["seen"]))
            if part == 3:
                await site.restart("dealer", "party0", "party1")
    async with site.client() as clinic:
        state = await clinic.data("state")
        assert state.parts == 7, "known to who comes later"
        assert len(digests) == 1, "one program for all of the chain"
        # 21 rows: three epochs, and every row in each of them.
        for epoch in range(3):
            assert sorted(np.round(np.array(seen[7 * epoch : 7 * epoch + 7]) * 8)) == [1, 2, 3, 4, 5, 6, 7]
        assert await clinic.reveal(state["sum"]) == pytest.approx([3 * X.sum()], abs=1e-2)


@pytest.mark.slow
async def test_with_macs_as_without(strict):
    await test_parts_follow_each_other(strict)


async def test_a_state_that_has_gone_on_is_not_gone_on_with_again(site):
    """So no part of the data comes twice, or is left out, whoever asks for it."""
    async with site.client() as clinic:
        data, state = await begun(clinic)
        await clinic.keep(link(data, state), "state")
        with pytest.raises((ProgramError, RemoteError)):
            await clinic.keep(link(data, state), "state")


async def test_a_run_that_fails_draws_nothing(site):
    """The next one draws the same rows, for what is still there."""
    async with site.client() as clinic:
        data, state = await begun(clinic)
        state = await clinic.keep(link(data, state), "state")
        site.corrupt("party1", Opening, lambda m, b: [(m, [b[0][:-1]])])
        with pytest.raises(PeerError):
            await clinic.keep(link(data, state), "state")
        site.restore("party1")
        await site.settled()
        state = await clinic.data("state")
        assert state.parts == 1
        state = await clinic.keep(link(data, state), "state")
        first, second = X.sum(), await clinic.reveal(state["sum"])
        assert first - 0.1 > second > first - X.max() - 0.01, "six of seven rows, each once"


async def test_one_rule_for_all_of_a_chain(site):
    """Of rows that are another's; and other rows, or more of them, are another program."""
    async with site.client() as clinic, site.client("company") as company:
        await company.upload(DataSet({"x": X}, low=-1, high=1, fraction_bits=16), "data")
        _, state = await begun(clinic)
        await company.allow("data", "clinic", schema=True)
        data = await clinic.data("company/data")
        program = clinic.digest(link(data, state))
        with pytest.raises(NotPermitted):
            await clinic.keep(link(data, state), "state")
        await company.allow("data", "clinic", [program], runs=3)
        data = await clinic.data("company/data")
        for _ in range(3):
            state = await clinic.keep(link(data, state), "state")
        with pytest.raises(NotPermitted):
            await clinic.keep({"sum": data.drawn("x", 2).sum() + state["sum"]}, "state")


@pytest.mark.parametrize("rows", [0, 8])
async def test_rows_that_are_not_there(site, rows):
    async with site.client() as clinic:
        data, _ = await begun(clinic)
        with pytest.raises(UsageError, match="there are no"):
            data.drawn("x", rows)


async def test_what_was_dealt_ahead_is_for_the_part_that_comes(site):
    async with site.client() as clinic:
        data, state = await begun(clinic)
        await clinic.stock(link(data, state), 2)
        state = await clinic.keep(link(data, state), "state")
        assert clinic.last_run.from_stock
        state = await clinic.keep(link(data, state), "state")
        assert not clinic.last_run.from_stock, "it was dealt for what is gone"
        first, second = X.sum(), await clinic.reveal(state["sum"])
        assert first - 0.1 > second > first - X.max() - 0.01


async def test_show_says_that_rows_are_drawn(site):
    async with site.client() as clinic:
        data, state = await begun(clinic)
        shown = str(await clinic.show(link(data, state)))
        assert "clinic/data 'x': 7, in [-1, 1]; 3 rows of it, others in each run" in shown


ABOUT_TWO = r"of (ONE ROW|about [234] ROWS) of company/data alone"


@pytest.mark.parametrize(
    ("make", "crowd"),
    [
        (lambda x: (x * x).sum(0), ABOUT_TWO),
        (lambda x: x[0] * x[1] * x[0], ""),
        (lambda x: (x * x * x).sum(), ABOUT_TWO),
    ],
)
async def test_show_is_loud_where_the_rows_that_are_drawn_are_few(make, crowd):
    """Of two rows of a hundred, as of the two rows of a data set that has no others; and other runs tell of others."""
    for rows in (0, 100):
        x = leaf(Stored((2, 4), 12, -1.0, 1.0, "company/data", "x", rows=rows))
        shown = str(explained(plan(graph_of([make(x)]), checked=True), "clinic"))
        assert re.search(crowd, shown)
        assert ("OTHER ROWS of company/data" in shown) == bool(rows)


async def test_an_order_is_chosen_by_no_other_owner(site):
    """A client that has a data set of its own drawn beside another's uploads it again, and again, until it likes what
    comes of the other's: it comes as it did."""
    async with site.client() as clinic, site.client("company") as company:
        await company.upload(DataSet({"x": X}, low=-1, high=1, fraction_bits=16), "data")
        await company.allow("data", "clinic", ["any"])
        theirs, seen = await clinic.data("company/data"), set[tuple[float, ...]]()
        for _ in range(3):
            mine = await clinic.upload(DataSet({"x": X}, low=-1, high=1, fraction_bits=16), "data")
            drawn = theirs.drawn("x", 3) + mine.drawn("x", 3) * 0.0
            seen.add(tuple(np.round(8 * await clinic.reveal(drawn))))
        assert len(seen) == 1
