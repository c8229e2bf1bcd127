"""Leave ends at one server alone, at every moment of a run: from then on nothing of the run leaves that server.

The others hear nothing of it and go on, as if they were in league with each other and with the client.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mpc import schedule
from mpc.errors import TesseraError
from mpc.security import Security
from parties import KeyPair
from parties.messages.rules import AllowUse, NewerRules, RuleSet, UseAllowed
from parties.messages.runs import (
    ClientMasks,
    Dealt,
    DealtPart,
    Disputed,
    Evaluated,
    Opening,
    Outputs,
    Ready,
    RunMessage,
)
from parties.messages.stock import Agreed
from parties.messages.stored import RemoveSecret, SecretRemoved
from parties.messages.uploads import VersionCommit, VersionPrepared
from parties.stored.rules import signed
from parties.wire.events import Delivery

from .conftest import opened
from .test_bindings import image
from .test_cluster_changes import following
from .test_model_keeping import model

SERVERS = ("dealer", "party0", "party1")
OF_A_RUN = (
    Agreed,
    ClientMasks,
    Dealt,
    DealtPart,
    Disputed,
    Evaluated,
    Opening,
    Outputs,
    Ready,
    VersionCommit,
    VersionPrepared,
)
"""All that a server says in a run that goes on, and of what that has kept."""

Change = Callable[[Any, Any, Any], Awaitable[None]]


async def take_back(site: Any, company: Any, server: Any) -> None:
    """The rule, at that server alone."""
    owner = site.cluster.member("company")
    number = next(known.number for known in book(server).known if known.name == "m") + 1
    found = signed(site.keys["company"], site.cluster, owner, RuleSet("company", "m", number, ()))
    message = AllowUse(request=secrets.token_hex(16))
    await company._board.ask(message, UseAllowed, [server.member.name], 5, found.payload)


def book(server: Any) -> Any:
    return (server._coordinator if server.member.name == "dealer" else server._secrets).rules


async def remove(site: Any, company: Any, server: Any) -> None:
    message = RemoveSecret(request=secrets.token_hex(16), name="m")
    await company._board.ask(message, SecretRemoved, [server.member.name], 5)


async def take_out(site: Any, company: Any, server: Any) -> None:
    """The client: by a cluster file that this server alone has heard of."""
    go_on(server, following(site.cluster, clients=(site.cluster.member("company"),)))


async def replaced(site: Any, company: Any, server: Any) -> None:
    """The client's key, which somebody may have read."""
    clinic = replace(site.cluster.member("clinic"), key=KeyPair.generate().public, origin=site.keys["clinic"].public)
    go_on(server, following(site.cluster, clients=(clinic, site.cluster.member("company"))))


def go_on(server: Any, new: Any) -> None:
    server.endpoint.go_on = lambda _: None
    try:
        server.succeeding.go_on(SimpleNamespace(cluster=new, steps=[SimpleNamespace(signatures={})]))
    finally:
        del server.endpoint.go_on


CHANGES: dict[str, Change] = {"rule": take_back, "removal": remove, "client": take_out, "key": replaced}


class Moments:
    """Before each message of runs that a server takes, and before and after each piece of its work for them.

    At the ``at``-th, whatever happens waits for ``change()``; what the server says of runs after it is in ``heard``.
    """

    def __init__(self, site: Any, server: Any, at: int, change: Callable[[], Awaitable[None]]) -> None:
        self._site, self._server, self._change = site, server, change
        self._left, self._held = at, list[Any]()
        self._deliver, self._in_background = server._deliver, server.in_background
        self._end_forbidden = server.end_forbidden
        self.reached, self.over, self._altering, self.heard = False, False, False, list[Any]()
        server._deliver, server.in_background, server.end_forbidden = self._take, self._work, self._ended
        # Nobody else hears of the change.
        site.corrupt(server.member.name, (NewerRules, *OF_A_RUN), self._say)

    def end(self) -> None:
        del self._server._deliver, self._server.in_background, self._server.end_forbidden
        self._site.restore(self._server.member.name)

    def _here(self) -> bool:
        self._left -= 1
        self.reached = self.reached or self._left == 0
        return self._left == 0

    async def _alter(self) -> None:
        self._altering = True
        await self._change()
        assert self.over

    def _ended(self) -> None:
        self._end_forbidden()
        self.over = self.over or self._altering

    def _take(self, delivery: Delivery) -> None:
        if not isinstance(delivery.message, RunMessage):
            self._deliver(delivery)
        elif self._held or self._here():
            self._held.append(delivery)
            if len(self._held) == 1:
                self._server.spawn(self._release())
        else:
            self._deliver(delivery)

    async def _release(self) -> None:
        await self._alter()
        for delivery in self._held:
            self._deliver(delivery)
        self._held.clear()

    def _work(self, job: Any, work: Callable[[], Any], *rest: Any, **options: Any) -> None:
        loop = asyncio.get_running_loop()

        def wait() -> None:
            if self._here():
                asyncio.run_coroutine_threadsafe(self._alter(), loop).result(5)

        def watched() -> Any:
            wait()
            result = work()
            wait()
            return result

        self._in_background(job, watched, *rest, **options)

    def _say(self, message: Any, buffers: list[Any]) -> Any:
        if isinstance(message, NewerRules):
            return []
        if self.over:
            self.heard.append(message)
        return [(message, buffers)]


RUNS: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {
    "revealed": lambda clinic, y: clinic.reveal(y),
    "kept": lambda clinic, y: clinic.keep({"y": y}, "result"),
    "dealt in parts": lambda clinic, y: clinic.reveal(y),
}


def deep(clinic: Any, y: Any) -> Any:
    """Of a program that is dealt in parts, once they are small."""
    y = clinic.share(np.linspace(-0.1, 0.1, 30).reshape(15, 2), low=-1, high=1) + y
    for _ in range(4):
        y = y.relu() + 0.05 * y
    return y


async def at_every_moment(site: Any, name: str, change: Change, run: str, *, stock: bool) -> int:
    """How many moments there were."""
    server = site.servers[name]
    async with site.client("company") as company, site.client() as clinic:
        at = failed = 0
        while True:
            at += 1
            await company.upload(model(0.5), "m")
            await company.allow("m", "clinic", ["any"])
            m = await clinic.model("m")
            y = deep(clinic, m(image(clinic))) if run == "dealt in parts" else m(image(clinic))
            if stock:
                await clinic.stock({"y": y} if run == "kept" else y, 1)
            moments = Moments(site, server, at, lambda: change(site, company, server))
            try:
                await RUNS[run](clinic, y)
            except TesseraError:
                if not moments.reached and failed < 2:
                    # A busy machine has ended it before that moment: once more.
                    at, failed = at - 1, failed + 1
                    continue
                assert moments.reached
                assert moments.over
            else:
                # It was over before, for this server: what it still waits for is no part of the run.
                assert not moments.reached or not moments.heard
            finally:
                await site.settled()
                moments.end()
                if server.cluster != site.cluster:
                    go_on(server, site.cluster)
            assert not moments.heard
            if not moments.reached:
                return at - 1


QUICK = ("rule", "dealer", Security.MALICIOUS, "revealed", True)
"""All others are slow tests: a party that is left waits, at each moment, until it gives up."""


def cases(security: Security) -> Iterator[Any]:
    for change, name, run, stock in itertools.product(CHANGES, SERVERS, RUNS, (False, True)):
        if change != "rule" and (security is Security.SEMI_HONEST or stock):
            continue
        marks = [] if (change, name, security, run, stock) == QUICK else [pytest.mark.slow]
        yield pytest.param(change, name, run, stock, marks=marks, id=f"{change}-{name}-{run}-{stock}")


async def nothing_leaves(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, security: Security, change: str, name: str, run: str, stock: bool
) -> None:
    monkeypatch.setattr(schedule, "PART", 2000)
    monkeypatch.setattr(schedule, "AHEAD", 6000)
    async with opened(tmp_path, security) as site:
        moments = await at_every_moment(site, name, CHANGES[change], run, stock=stock)
    # Asked for, dealt, agreed on, given its inputs, and each of its rounds.
    assert moments >= (6 if name == "dealer" else 9 if security is Security.MALICIOUS else 7)


@pytest.mark.parametrize(("change", "name", "run", "stock"), list(cases(Security.SEMI_HONEST)))
async def test_nothing_of_a_run_without_leave_leaves_the_one_honest_server(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, change: str, name: str, run: str, stock: bool
) -> None:
    await nothing_leaves(tmp_path, monkeypatch, Security.SEMI_HONEST, change, name, run, stock)
