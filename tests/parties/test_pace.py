"""Long work gives way between its steps: whose, to whom, and everywhere that a program is gone through."""

import asyncio
import contextlib
import gc
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from mpc import pace as steps
from mpc.errors import TesseraError
from mpc.operation import Input
from mpc.pace import STEP, paced, pausing
from mpc.program import Program
from mpc.security import Security
from parties.members.cluster import Role
from parties.messages.bindings import BoundProgram
from parties.messages.runs import Prepare, Release
from parties.servers import pace as pace_module
from parties.servers import rounds
from parties.servers.governor import longest_step_seconds
from parties.servers.pace import ACTIVE, LONG, LONGEST_REST, MUCH, REST, Pace
from parties.servers.rounds import THREAD_SECONDS
from protocols.lowering.plan import plan
from protocols.randomness.dealt import TrustedDealer
from protocols.readings.evaluation import Evaluation
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import graph_of, leaf


def wide(nodes):
    """A program of a few more nodes, one number each, whose values are all there after one round."""
    x = leaf(Input((1,), 16, -1.0, 1.0))
    y = x * x
    for _ in range(nodes):
        y = -y
    return plan(graph_of([y]))


# -- steps ---------------------------------------------------------------------------------------------------------


def test_a_loop_pauses_after_each_step_and_only_where_it_is_told_to():
    pauses = []
    with pausing(lambda: pauses.append(len(pauses))):
        assert list(paced(range(3 * STEP + 1))) == list(range(3 * STEP + 1))
    assert pauses == [0, 1, 2]
    items = [1, 2]
    assert paced(items) is items


def test_what_a_pause_raises_ends_the_loop():
    done = []
    with pytest.raises(KeyError), pausing(lambda: {}["enough"]):
        done.extend(paced(range(100)))
    assert len(done) <= STEP


@pytest.mark.parametrize(
    ("times", "long"),
    [
        pytest.param(2, lambda program, data: Program.decode(data), id="decode, check"),
        pytest.param(2, lambda program, data: Program(program.nodes, program.outputs).encode(), id="check, encode"),
        pytest.param(
            1, lambda program, data: TrustedDealer().deal(program, 2, {}, Security.MALICIOUS).for_party(1), id="deal"
        ),
        pytest.param(
            5,
            lambda program, data: run_in_memory(program, [np.zeros(1, np.uint64)]),
            id="deal; both prepare, and evaluate",
        ),
    ],
)
def test_whatever_goes_through_a_program_does_it_in_steps(times, long):
    program, pauses = wide(40 * STEP), []
    data = program.encode()
    with pausing(lambda: pauses.append(1)):
        long(program, data)
    assert len(pauses) >= 40 * times


def test_a_program_leaves_next_to_nothing_to_the_garbage_collector():
    """What looks through all there is holds the interpreter meanwhile: a tenth of a second, once it was."""
    data = wide(2000).encode()
    Program.decode(data)
    gc.collect()
    before = len(gc.get_objects())
    bound = BoundProgram(Program.decode(data), (), "clinic").derive()
    gc.collect()
    assert len(gc.get_objects()) - before < 100
    assert len(bound.program.nodes) >= 2000


# -- who rests -----------------------------------------------------------------------------------------------------


class Threads:
    """A `Pace` by a clock of its own, and what is done by it."""

    def __init__(self, monkeypatch):
        self.now = self.used = 0.0
        self.rested = []
        clock = SimpleNamespace(monotonic=lambda: self.now, thread_time=lambda: self.used, sleep=self.rest)
        monkeypatch.setattr(pace_module, "time", clock)
        self.pace = Pace()

    def rest(self, seconds):
        self.rested.append(seconds)
        self.now += seconds

    def work(self, member, seconds, step=1e-3, expected=0.0):
        """So much of that member's, in pieces between which it may rest; how long it has rested."""
        before = len(self.rested)
        with self.pace.working(member, expected, lambda: False):
            for _ in range(round(seconds / step)):
                self.used += step
                self.now += step
                steps._pause.get()()
        return sum(self.rested[before:])


@pytest.fixture
def threads(monkeypatch):
    return Threads(monkeypatch)


def test_who_is_alone_never_rests(threads):
    assert threads.work("a", 3.0) == 0
    threads.pace.heard("b")
    threads.now += ACTIVE
    assert threads.work("a", 3.0, expected=3.0) == 0


def test_long_work_rests_while_others_are_at_it_and_short_work_does_not(threads):
    threads.pace.heard("b")
    assert threads.work("a", LONG / 2) == 0
    threads.pace.heard("b")
    assert threads.work("a", 0.01, expected=LONG) == pytest.approx(REST * 0.01)
    threads.pace.heard("b")
    assert threads.work("a", 0.01, expected=0.96 * LONG) == 0, "what it is expected to take it does not take twice"
    threads.pace.heard("b")
    assert threads.work("a", LONG + 0.02) == pytest.approx(REST * 0.02, abs=REST * 2e-3)


def test_a_rest_has_an_end_however_long_the_step_was(threads):
    threads.pace.heard("b")
    assert threads.work("a", 0.1, step=0.1, expected=1.0) == LONGEST_REST


def test_who_has_had_much_of_late_gives_way_to_who_has_had_less(threads):
    for _ in range(12):
        threads.work("a", LONG / 2)
    threads.pace.heard("b")
    assert threads.pace._account("a").had_by(threads.now) > MUCH
    assert threads.work("a", LONG / 2) > 0
    assert threads.work("b", LONG / 2) == 0, "it has had less"
    threads.now += 10 * pace_module.FORGOTTEN
    threads.pace.heard("b")
    assert threads.work("a", LONG / 2) == 0, "that is forgotten"


def test_many_short_pieces_are_as_much_as_a_long_one(threads):
    """Each is done without a step: who has had much rests when it is done, before its next one."""
    rests = []
    for _ in range(100):
        threads.pace.heard("b")
        with threads.pace.working("a", 0.0, lambda: False):
            threads.used += 0.005
            threads.now += 0.005
        rests.append(sum(threads.rested))
        threads.rested.clear()
    assert rests[0] == 0
    assert rests[-1] == LONGEST_REST
    assert MUCH < 0.005 * rests.index(LONGEST_REST) < 2 * MUCH


def test_one_thread_rests_at_a_time():
    """However many work for whomever, together they get what one would."""
    pace, resting, most = Pace(), [], []
    lock = threading.Lock()

    def sleep(_):
        with lock:
            resting.append(1)
            most.append(len(resting))
        threading.Event().wait(0.002)
        with lock:
            resting.pop()

    def work(member):
        with pace.working(member, 1.0, lambda: False):
            for _ in range(3):
                sum(range(40_000))
                pace.heard("other")
                steps._pause.get()()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace_module, "time", SimpleNamespace(**{**vars(pace_module.time), "sleep": sleep}))
        tasks = [threading.Thread(target=work, args=(f"m{i % 2}",)) for i in range(4)]
        for task in tasks:
            task.start()
        for task in tasks:
            task.join()
    assert most
    assert max(most) == 1


def test_work_that_nobody_wants_ends_at_its_next_step(threads):
    wanted = [True]

    def unwanted():
        return not wanted

    with pytest.raises(TesseraError, match="nobody waits"), threads.pace.working("a", 0.0, unwanted):
        steps._pause.get()()
        wanted.clear()
        steps._pause.get()()
    with pytest.raises(TesseraError, match="nobody waits"), threads.pace.working("a", 0.0, unwanted):
        raise AssertionError("begun")
    assert threads.pace._account("a").had == 0


# -- at servers ----------------------------------------------------------------------------------------------------


async def test_a_run_that_is_given_up_is_worked_at_no_longer(site, monkeypatch):
    monkeypatch.setattr(Pace, "_gives_way", lambda *_, long: True)
    monkeypatch.setattr(pace_module, "STEP", 0.0)
    monkeypatch.setattr(pace_module, "REST", 1e9)
    monkeypatch.setattr(pace_module, "LONGEST_REST", 0.3)
    data, run = wide(40 * STEP).encode(), "a" * 32
    endpoint = site.endpoint("company")
    async with endpoint:
        await endpoint.connect(deadline=20)
        for server in site.servers:
            endpoint.send(server, Prepare(run=run), [data])
        await site.until(lambda: all(run in server.jobs for server in site.servers.values()))
        await asyncio.sleep(0.2)
        for server in site.servers:
            endpoint.send(server, Release(run=run))
        # All of it would have taken 36 s.
        await site.until(lambda: not any(s.governor.admission._reserved.total() for s in site.servers.values()))


@pytest.fixture
def where(monkeypatch):
    """Whether nodes are evaluated in the thread in which messages are taken, or in others."""
    found, evaluate = set(), Evaluation.evaluate

    def watched(self, i):
        found.add(threading.current_thread() is threading.main_thread())
        evaluate(self, i)

    monkeypatch.setattr(Evaluation, "evaluate", watched)
    return found


async def test_programs_of_many_nodes_are_not_computed_where_messages_are_taken(site, where):
    async with site.client() as client:
        for factors, inline in ((4, True), (1500, False)):
            where.clear()
            y = client.share([0.5])
            y = y * y
            for _ in range(factors):
                y = -y
            result = await client.reveal(y)
            assert result == pytest.approx([0.25], abs=1e-3)
            assert where == {inline}
    assert longest_step_seconds(wide(1500)) > THREAD_SECONDS > longest_step_seconds(wide(10))
    await site.settled()


@pytest.mark.parametrize("beside", [False, True])
async def test_short_steps_of_a_long_program_hop_to_a_thread_only_beside_others(site, monkeypatch, where, beside):
    monkeypatch.setattr(rounds, "LONG", 0.0)
    async with site.client() as client:
        if beside:
            for server in site.servers.values():
                monkeypatch.setattr(server.governor.pace, "alone", lambda *_: False)
        x = client.share([0.5, -0.25])
        assert await client.reveal((x.relu() * x - 0.125).relu()) == pytest.approx([0.125, 0.0], abs=1e-3)
        assert where == {not beside}
    for server in site.servers.values():
        if server.member.role is Role.PARTY:
            assert sum(account.had for account in server.governor.pace._accounts.values()) > 0
        assert not server.endpoint._eager
    await site.settled()


def test_who_is_alone(threads):
    threads.pace.charge("a", 0.5)
    assert threads.pace.alone("a", ())
    assert not threads.pace.alone("b", ())
    threads.now += ACTIVE
    threads.pace.heard("b")
    assert threads.pace.alone("b", ())
    assert not threads.pace.alone("a", ())
    assert threads.pace.alone("a", ("b", "c"))


async def test_a_prediction_beside_heavy_programs_waits_for_none_of_them(site, monkeypatch):
    """They rest meanwhile: had they to be done first, it would take a minute."""
    monkeypatch.setattr(pace_module, "LONG", 0.0)
    monkeypatch.setattr(pace_module, "STEP", 0.0)
    monkeypatch.setattr(pace_module, "REST", 1e9)
    monkeypatch.setattr(pace_module, "LONGEST_REST", 0.5)
    monkeypatch.setattr(pace_module, "ACTIVE", 60.0)
    data = wide(60 * STEP).encode()
    endpoint = site.endpoint("company")
    async with endpoint, site.client() as client:
        await endpoint.connect(deadline=20)
        for i in range(4):
            for server in site.servers:
                endpoint.send(server, Prepare(run=f"{i:032x}"), [data])
        async with asyncio.timeout(20):
            assert await client.reveal(client.share([3.0]) * 2) == pytest.approx([6.0], abs=1e-3)
        for i in range(4):
            for server in site.servers:
                endpoint.send(server, Release(run=f"{i:032x}"))
        with contextlib.suppress(TimeoutError):
            await site.settled()
    await site.settled()
