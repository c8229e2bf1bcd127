"""Trainings that go on by themselves: as far as a client's signed order goes, under every check that runs have."""

import asyncio
import time

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from mpc.errors import LimitReached, NoSuchName, NotPermitted, ProgramError, ProtocolViolation, RunExpired, UsageError
from nn import SGD, CrossEntropyLoss, Linear, Sequential
from nn.schedules import StepLR
from parties import DataSet
from parties.messages.jobs import JobOrder, RunJob, job_of, read_order, run_of
from parties.messages.requests import Signed
from parties.messages.runs import Opening
from parties.servers import trainer
from parties.servers.party_jobs import check_run

pytestmark = pytest.mark.usefixtures("unhurried")

NET = Sequential({"out": Linear(4, 3)}).architecture((4,))
SOFT = SGD(lr=0.125, momentum=0.5)
OPTIONS = {"name": "net", "batch": 6, "steps": 1, "logits": 4.0}


def data_set(seed, count):
    rng = np.random.default_rng(seed)
    x = np.round(rng.uniform(-1, 1, (count, 4)) * 256) / 256
    return DataSet({"x": x, "y": np.eye(3)[x[:, :3].argmax(1)]}, ranges={"x": (-1, 1), "y": (0, 1)}, fraction_bits=8)


async def trainable(site, client, checkpoints, **options):
    """A training of the clinic's on the company's rows, which the company has allowed, so often."""
    runs = options.pop("runs", None)
    async with site.client("company") as company:
        await company.upload(data_set(1, 12), "data")
        await company.allow("data", "clinic", schema=True)
        training = await begun(client, checkpoints, **options)
        for kept in training.left:
            program = await client.request(kept, "to tell three kinds apart")
            await company.approve(program, runs=runs)
    return training


async def begun(client, checkpoints, **options):
    data, optimizer = [await client.data("company/data")], options.pop("optimizer", SOFT)
    how = {**OPTIONS, "epochs": checkpoints / 2, **options}
    return await client.training(NET, data, CrossEntropyLoss(), optimizer, **how)


async def test_it_goes_on_when_its_client_has_left(either):
    """And who comes back finds it, with what was revealed meanwhile, and what each run has cost."""
    site = either
    async with site.client() as clinic:
        training = await trainable(site, clinic, 3, losses=True)
        job = await clinic.submit(training)
    async with site.client() as clinic:
        (found,) = await clinic.jobs()
        assert found.id == job.id and (await clinic.job("net")).id == job.id
        assert [made.step async for made in found.follow()] == [1, 2, 3]
        for made in await found.progress():
            assert 0.5 < made.loss < 2.0 and made.report.online.rounds == made.report.predicted.online_rounds
            assert made.report.online.bytes == made.report.predicted.online_bytes_per_party
        assert [made.step for made in await found.progress(2)] == [3]
        model = await found.wait()
        assert model.parts == 3 and (await found.standing()).to_dict()["state"] == "done"
        with pytest.raises(UsageError, match="all of its steps"):
            await clinic.submit(await begun(clinic, 3))
    async with site.client("company") as company:
        # Who owns what it reads sees that it goes on, and nothing of what it reveals.
        (seen,) = await company.jobs()
        assert (await seen.standing()).step == 3
        with pytest.raises(NoSuchName):
            await seen.progress()
        with pytest.raises(NoSuchName):
            await seen.stop()


async def test_it_is_stopped_and_goes_on_from_there(site):
    async with site.client() as clinic:
        training = await trainable(site, clinic, 40)
        job = await clinic.submit(training)
        assert (await clinic.submit(training)).id == job.id, "there is one of a name, and it is attached to"
        with pytest.raises(UsageError, match="another training goes on"):
            await clinic.submit(await begun(clinic, 40, losses=True))
        assert (await anext(job.follow())).step == 1
        await job.stop()
        model = await job.wait()
        standing = await job.standing()
        assert standing.state == "stopped" and 1 <= standing.step == model.parts < 40
        await site.settled()
        again = await clinic.submit(await begun(clinic, model.parts + 1))
        assert [made.step async for made in again.follow()] == [model.parts + 1]


@pytest.mark.slow
async def test_a_rate_that_changes_has_a_program_at_each_checkpoint(site):
    slower = SGD(lr=0.125, momentum=0.5, schedule=StepLR(1, gamma=0.5))
    async with site.client() as clinic:
        job = await clinic.submit(await trainable(site, clinic, 3, optimizer=slower))
        assert len(job.order.programs) == 3 and (await job.wait()).parts == 3
        assert [made.step for made in await job.progress()] == [1, 2, 3]


async def ended(job):
    with pytest.raises(Exception) as caught:
        async for _ in job.follow():
            pass
    standing = await job.standing()
    assert standing.state == "failed" and type(standing.error) is caught.type
    return caught.value, standing


async def test_an_owner_who_takes_its_leave_back_ends_it(site):
    """Before another message of a run; the error is kept for whoever asks."""
    async with site.client() as clinic:
        job = await clinic.submit(await trainable(site, clinic, 500))
        assert (await anext(job.follow())).step == 1
        async with site.client("company") as company:
            await company.allow("data", "clinic", [])
        heard = []
        site.overhear("party0", heard)
        error, standing = await ended(job)
        assert isinstance(error, NotPermitted) and standing.step < 500
        await site.settled()
        opened = len(heard)
        await asyncio.sleep(0.1)
        assert len(heard) == opened


async def test_it_makes_no_more_runs_than_an_owner_has_allowed(site):
    async with site.client() as clinic:
        error, standing = await ended(await clinic.submit(await trainable(site, clinic, 4, runs=2)))
        assert isinstance(error, LimitReached) and standing.step == 2
        assert (await clinic.model("net")).parts == 2


async def started(site, clinic):
    """A job that is over, with what the dealer has said to party0 of its last run."""
    said = []

    def listen(message, buffers):
        said.append((message, buffers))
        return [(message, buffers)]

    site.corrupt("dealer", RunJob, listen)
    job = await clinic.submit(await trainable(site, clinic, 2))
    await job.wait()
    await site.settled()
    message, (signed, program) = said[-1]
    return job, message, msgspec.msgpack.decode(signed, type=Signed), program


def forged(site, order, signer, **changes):
    """The order with these changes, under that member's signature."""
    said = msgspec.msgpack.encode(replace(order, **changes))
    return Signed(said, site.keys[signer].sign(JobOrder.purpose, site.cluster.name.encode(), said))


async def test_a_party_goes_by_what_the_client_has_signed(site):
    """Whatever the dealer says: an order that is altered, of another's hand, too old, or of another run than it has."""
    async with site.client() as clinic:
        job, message, signed, program = await started(site, clinic)
        party, dealer = site.servers["party0"], site.cluster.dealer
        desk = party._trainings

        def say(signed, **changes):
            named = replace(message, **changes)
            named = named if "run" in changes else replace(named, run=run_of(job_of(signed), named.serial))
            desk._on_run(dealer, named, [memoryview(signed.encode()), memoryview(program)])

        order = job.order
        altered = Signed(msgspec.msgpack.encode(replace(order, checkpoints=50)), signed.signature)
        with pytest.raises(ProgramError, match="not signed by who is said"):
            say(altered)
        with pytest.raises(ProgramError, match="not signed by who is said"):
            say(forged(site, order, "company", checkpoints=50))
        with pytest.raises(RunExpired):
            say(forged(site, order, "clinic", when=order.when - 1e6, until=time.time() - 1))
        with pytest.raises(ProgramError, match="holds for too long"):
            say(forged(site, order, "clinic", until=order.when + 1e9))
        with pytest.raises(ProtocolViolation, match="under another name"):
            say(signed, run="0" * 32)
        with pytest.raises(ProtocolViolation, match="that a job does not have"):
            say(signed, serial=9, number=2)
        with pytest.raises(ProtocolViolation, match="that a job does not have"):
            say(signed, serial=1, number=1, parent=1)
        assert not party.jobs
        # What can be looked at only with its program: run again, it is refused there.
        held = desk.book.held[job.id]
        for serial in (held.begun - 1, order.most):
            with pytest.raises(ProgramError, match="has begun, or is one of too many"):
                desk.book.begin(held, serial)
        await site.restart("party0")
        held = site.servers["party0"]._trainings.book.held[job.id]
        assert held.begun == 2, "that outlasts a restart"
        with pytest.raises(ProgramError, match="another program"):
            other = replace(order, runs=(replace(order.runs[0], program="0" * 64),))
            bound = type("Bound", (), {"program": type("Program", (), {"digest": order.runs[0].program})})
            check_run(bound, other, 0)


@pytest.mark.parametrize("change", [{"number": 0}, {"serial": 0}], ids=str)
async def test_a_run_from_another_state_is_refused_by_every_party(site, change, monkeypatch):
    """A dealer that goes back to an earlier checkpoint, or begins a run once more, stops the job, and nothing else."""
    monkeypatch.setattr(trainer, "_TRIES", 1)

    def astray(message, buffers):
        return [(message if message.number == 0 else replace(message, **change), buffers)]

    async with site.client() as clinic:
        training = await trainable(site, clinic, 3)
        site.corrupt("dealer", RunJob, astray)
        error, standing = await ended(await clinic.submit(training))
        assert isinstance(error, ProtocolViolation | ProgramError) and standing.step == 1
        assert (await clinic.model("net")).parts == 1


async def test_orders_that_make_no_sense(site):
    async with site.client() as clinic:
        job = await clinic.submit(await trainable(site, clinic, 2))
        order, name = job.order, site.cluster.name.encode()
        await job.wait()

        def read(**changes):
            said = msgspec.msgpack.encode(replace(order, **changes))
            return read_order(
                Signed(said, site.keys["clinic"].sign(JobOrder.purpose, name, said)), site.cluster, "clinic"
            )

        assert read() == order
        with pytest.raises(ProgramError, match="somebody else's"):
            read_order(order.signed(site.keys["clinic"], site.cluster), site.cluster, "company")
        for changes in ({"start": "0" * 32}, {"name": "other"}, {"runs": order.runs * 3}, {"until": order.when + 1e9}):
            with pytest.raises(ProgramError):
                read(**changes)


@pytest.mark.slow
async def test_whoever_is_started_again_it_goes_on(site):
    """Each in turn, and all; no checkpoint is left out, and the weights are those of all steps."""
    async with site.client() as clinic:
        training = await trainable(site, clinic, 30)
        job = await clinic.submit(training)
        follow = job.follow()
        for names in (["party1"], ["dealer"], ["party0", "party1"], ["dealer", "party0", "party1"]):
            step = (await anext(follow)).step
            await site.restart(*names)
        steps = [made.step async for made in follow]
        assert steps == list(range(step + 1, 31)) and (await job.standing()).state == "done"


@pytest.mark.slow
async def test_no_opening_of_a_job_is_made_twice(site):
    heard = {"party0": [], "party1": []}
    for name, found in heard.items():
        site.overhear(name, found, Opening)
    async with site.client() as clinic:
        job = await clinic.submit(await trainable(site, clinic, 6))
        await site.restart("dealer")
        await job.wait()
    for found in (list(filter(None, each)) for each in heard.values()):
        assert len(found) > 50 and len(set(found)) == len(found)
