"""Networks trained over stored data: as in the clear, by one program, from checkpoint to checkpoint, seen by nobody."""

import asyncio

import numpy as np
import pytest

from mpc.errors import NoAnswer, NotPermitted, PeerError, UsageError
from mpc.rings.field import P
from nn import SGD, CrossEntropyLoss, Linear, Model, MSELoss, Sequential
from nn.training import initial, shares
from parties import DataSet
from parties.client.mixing import mixed
from parties.messages.runs import Opening
from parties.messages.uploads import VersionPrepared, VersionReady, VersionsHeld

pytestmark = pytest.mark.usefixtures("unhurried")

FEATURES, CLASSES = 4, 3
NET = Sequential({"out": Linear(FEATURES, CLASSES)}).architecture((FEATURES,))
SOFT = SGD(lr=0.125, momentum=0.5)
OPTIONS = {"name": "net", "batch": 6, "steps": 2, "epochs": 2.0, "logits": 4.0}


def rows(seed, count):
    rng = np.random.default_rng(seed)
    x = np.round(rng.uniform(-1, 1, (count, FEATURES)) * 256) / 256
    return x, np.eye(CLASSES)[x[:, :CLASSES].argmax(1)]


def data_set(seed, count):
    x, y = rows(seed, count)
    return DataSet({"x": x, "y": y}, ranges={"x": (-1, 1), "y": (0, 1)}, fraction_bits=8)


def twin(training, data, optimizer, most=1 << 30, start=None):
    """The same in float64, with the rows that are drawn; ``most`` steps of it."""
    weights = start or initial(NET)
    w, b = weights["out.weight"].T.copy(), weights["out.bias"].copy()
    v, vb = np.zeros_like(w), np.zeros_like(b)
    step = 0
    for checkpoint in range(training.checkpoints):
        for drawn in training.drawn(checkpoint):
            if step == most:
                return w, b
            x, y = (np.concatenate([d[i][at] for d, at in zip(data, drawn, strict=True)]) for i in (0, 1))
            z = x @ w + b
            p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
            q = (p - y) / len(x)
            v, vb = optimizer.mu * v + x.T @ q, optimizer.mu * vb + q.sum(0)
            w, b = w - optimizer.rate(step) * v, b - optimizer.rate(step) * vb
            step += 1
    return w, b


def twin_losses(training, data, optimizer):
    """Of each step, that of its batch before it."""
    losses = []
    for checkpoint in range(training.checkpoints):
        for number, drawn in enumerate(training.drawn(checkpoint)):
            w, b = twin(training, data, optimizer, checkpoint * training.steps + number)
            x, y = (np.concatenate([d[i][at] for d, at in zip(data, drawn, strict=True)]) for i in (0, 1))
            z = x @ w + b
            losses.append(float((np.log(np.exp(z).sum(1)) - (z * y).sum(1)).mean()))
    return losses


async def owned(site, count=12):
    """Data of the company's, which the clinic may know of, and its own."""
    async with site.client("company") as company:
        await company.upload(data_set(1, count), "data")
        await company.allow("data", "clinic", schema=True)
    async with site.client() as clinic:
        await clinic.upload(data_set(2, 6), "data")


async def sets(client):
    return [await client.data("company/data"), await client.data("clinic/data")]


@pytest.mark.slow
async def test_with_macs_as_without(strict):
    await test_as_in_the_clear_and_by_the_leave_of_all(strict)


async def test_as_in_the_clear_and_by_the_leave_of_all(site):
    await owned(site)
    async with site.client() as clinic, site.client("company") as company:
        training = await clinic.training(NET, await sets(clinic), CrossEntropyLoss(), SOFT, **OPTIONS)
        assert (training.rows, training.checkpoints) == ((4, 2), 3)
        with pytest.raises(NotPermitted):
            await anext(aiter(training))
        program = await clinic.request(training.kept, "to tell three kinds apart")
        shown = str(await company.show(program))
        assert "8 rows of it, others in each run" in shown and "(out): Linear" in shown
        assert "nobody uses it, clinic included" in shown
        await company.approve(program)
        assert await clinic.approved(program, timeout=5)
        digests = set()
        async for made in training:
            digests.add(clinic.digest(training.kept))
            assert made.report.online.rounds == made.report.predicted.online_rounds
            assert made.report.online.bytes == made.report.predicted.online_bytes_per_party
        assert digests == {program} and (made.step, made.steps, made.epoch) == (6, 6, 2.0)
        # Nobody sees it, and both together let it be used, and revealed.
        model = training.model
        for leave in (model["out.weight"], model["out.weight.momentum"]):
            with pytest.raises(NotPermitted, match="belongs to company as well"):
                await clinic.reveal(leave)
        x, _ = rows(3, 5)
        with pytest.raises(NotPermitted):
            await clinic.predict(model, x)
        await company.allow("clinic/net", "clinic")
        answers = await clinic.predict(model, x)
        await company.allow("clinic/net", "clinic", [clinic.digest([model["out.weight"], model["out.bias"]])])
        weights, bias = await clinic.reveal([model["out.weight"], model["out.bias"]])
        w, b = twin(training, [rows(1, 12), rows(2, 6)], SOFT)
        assert weights == pytest.approx(w, abs=1e-3) and bias == pytest.approx(b, abs=1e-3)
        assert answers == pytest.approx(x @ w + b, abs=2e-3)


async def allowed(site):
    """A training that may run."""
    async with site.client() as clinic, site.client("company") as company:
        training = await clinic.training(NET, await sets(clinic), CrossEntropyLoss(), SOFT, **OPTIONS)
        await company.allow("data", "clinic", [clinic.digest(training.kept)])


@pytest.mark.slow
async def test_as_in_the_clear_for_five_hundred_steps(site):
    """Of three owners with other numbers of rows; weights are off by less than a thousandth."""
    rates = SGD(lr=0.0625, momentum=0.875, fraction_bits=24)
    sizes = {"a": 33, "b": 20, "c": 11}
    async with site.client() as clinic:
        data = [await clinic.upload(data_set(i, count), name) for i, (name, count) in enumerate(sizes.items())]
        options = {**OPTIONS, "batch": 13, "steps": 4, "epochs": 500 * 13 / 64, "logits": 12.0}
        training = await clinic.training(NET, data, CrossEntropyLoss(), rates, **options)
        async for made in training:
            assert made.step == training.step
        assert training.step == 500
        w, b = twin(training, [rows(i, count) for i, count in enumerate(sizes.values())], rates)
        weights, bias = await clinic.reveal([training.model["out.weight"], training.model["out.bias"]])
        assert np.abs(w).max() > 2.0, "it has learnt"
        assert weights == pytest.approx(w, abs=1e-3) and bias == pytest.approx(b, abs=1e-3)


@pytest.mark.slow
async def test_who_comes_later_goes_on(site):
    """The client has gone; and what it finds out is how far it had come."""
    await owned(site)
    await allowed(site)
    async with site.client() as clinic:
        training = await clinic.training(NET, await sets(clinic), CrossEntropyLoss(), SOFT, **OPTIONS)
        async for made in training:
            if made.step == 2:
                break
    await site.restart("dealer", "party0", "party1")
    async with site.client() as clinic, site.client("company") as company:
        steps = []
        model = await clinic.train(
            NET, await sets(clinic), CrossEntropyLoss(), SOFT, progress=lambda made: steps.append(made.step), **OPTIONS
        )
        assert steps == [4, 6]
        await company.allow("clinic/net", "clinic", [clinic.digest(model["out.weight"])])
        w, _ = twin(training, [rows(1, 12), rows(2, 6)], SOFT)
        assert await clinic.reveal(model["out.weight"]) == pytest.approx(w, abs=1e-3)
        # All is done: nothing is left to do.
        again = await clinic.training(NET, await sets(clinic), CrossEntropyLoss(), SOFT, **OPTIONS)
        assert [made async for made in again] == []
        with pytest.raises(UsageError, match="something else than what this training begins with"):
            await clinic.training(NET, await sets(clinic), CrossEntropyLoss(), SGD(lr=0.125), **OPTIONS)


@pytest.mark.slow
async def test_what_fails_on_the_way_is_made_again(site):
    """A client that is not told, and a party that is lost: each step is made once."""
    await owned(site)
    await allowed(site)
    async with site.client() as clinic, site.client("company") as company:
        training = await clinic.training(NET, await sets(clinic), CrossEntropyLoss(), SOFT, **OPTIONS)
        lost = asyncio.Event()

        def silent(message, buffers):
            lost.set()
            return []

        async for made in training:
            if made.step == 2:
                site.corrupt("party1", VersionReady, silent)
                task = asyncio.create_task(_until(lost, site))
            elif made.step == 4:
                await task
                assert training.model.parts == 2
        await company.allow("clinic/net", "clinic", [clinic.digest(training.model["out.weight"])])
        w, _ = twin(training, [rows(1, 12), rows(2, 6)], SOFT)
        assert await clinic.reveal(training.model["out.weight"]) == pytest.approx(w, abs=1e-3)


async def _until(lost, site):
    await lost.wait()
    site.restore("party1")


@pytest.mark.slow
async def test_no_mask_serves_two_values(site):
    """A run that fails when all is opened is made again, with the same rows of the same state: under other masks.

    Were one of them the same, so would be what is opened under it, since what it hides is.
    """
    async with site.client() as clinic:
        data = [await clinic.upload(data_set(1, 12), "data")]
        training = await clinic.training(NET, data, CrossEntropyLoss(), SOFT, **OPTIONS)
        heard = {name: [] for name in ("party0", "party1")}

        def listen(name):
            def heard_of(message, buffers):
                if isinstance(message, Opening):
                    heard[name].append((message.run, message.round, b"".join(bytes(b) for b in buffers)))
                    return [(message, buffers)]
                if name == "party1" and len({run for run, *_ in heard[name]}) == 1:
                    return []  # it has all of it, and the coordinator never hears so
                return [(message, buffers)]

            return heard_of

        for name in heard:
            site.corrupt(name, (Opening, VersionPrepared, VersionsHeld) if name == "party1" else Opening, listen(name))
        await anext(aiter(training))
        runs = list(dict.fromkeys(run for run, *_ in heard["party0"]))
        assert len(runs) == 2, "it failed, and was made again"
        opened = []
        for run in runs:
            sent = [
                [np.frombuffer(b[: len(b) // 8 * 8], np.uint64) for r, _, b in heard[name] if r == run]
                for name in heard
            ]
            opened.append([(a % P + b % P) % P for a, b in zip(*sent, strict=True)])
        elements = 0
        for first, second in zip(*opened, strict=True):
            if len(first) > 16:  # packed bits among few elements may be equal by chance
                assert np.mean(first == second) < 0.05
                elements += len(first)
        assert elements > 100


@pytest.mark.slow
async def test_a_party_that_cheats_ends_it(strict):
    await owned(strict)
    await allowed(strict)

    def off_by_one(message, buffers):
        changed = np.frombuffer(buffers[0], np.uint64).copy()
        changed[0] ^= np.uint64(1)
        return [(message, [changed, *buffers[1:]])]

    async with strict.client() as clinic:
        training = await clinic.training(NET, await sets(clinic), CrossEntropyLoss(), SOFT, **OPTIONS)
        await anext(aiter(training))
        strict.corrupt("party1", Opening, off_by_one)
        with pytest.raises(PeerError, match="party1"):
            await anext(aiter(training))
        strict.restore("party1")
        await strict.settled()
        assert (await clinic.model("net")).parts == 1, "and what there was before is there"


async def test_divergence_is_an_error_at_its_checkpoint(site):
    """Weights that leave their range are not kept."""
    async with site.client() as clinic:
        x, y = rows(4, 12)
        data = [await clinic.upload(DataSet({"x": x, "y": y * 2}, low=-2, high=2, fraction_bits=8), "data")]
        wild = SGD(lr=1.5, momentum=0.5)
        options = {**OPTIONS, "weights": 1.0, "logits": 8.0, "epochs": 20.0}
        training = await clinic.training(NET, data, MSELoss(reduction="sum"), wild, **options)
        with pytest.raises(NoAnswer) as failed:
            async for made in training:
                before = made.step
        model = await clinic.model("net")
        assert model.parts * 2 == training.step
        which = f"in steps {training.step + 1} to {training.step + 2}, and the network is as it was"
        assert which in str(failed.value)
        job = await clinic.submit(training)
        with pytest.raises(NoAnswer, match=which):
            await job.wait()
        assert np.abs(await clinic.reveal(model["out.weight"])).max() <= 1.0, before


async def test_a_model_goes_on_from_its_weights(site):
    async with site.client() as clinic:
        data = [await clinic.upload(data_set(1, 12), "data")]
        model = Model(NET, {"out.weight": np.full((3, 4), 0.25), "out.bias": np.zeros(3)})
        training = await clinic.training(model, data, CrossEntropyLoss(), SOFT, **OPTIONS)
        assert await clinic.reveal(training.model["out.weight"]) == pytest.approx(0.25, abs=1e-6)


async def begun_with(clinic, company, base, data, **how):
    """A training of a stored network of the company's, which has allowed it to begin, and to go on."""
    given = data, CrossEntropyLoss(), SOFT
    program = await clinic.request(await clinic.beginning(base, *given, **how), "to begin with")
    shown = str(await company.show(program))
    assert "nobody uses it, clinic included" in shown and "gives" not in shown
    await company.approve(program, runs=1)
    assert await clinic.approved(program, timeout=20)
    training = await clinic.training(base, *given, **how)
    with pytest.raises(NotPermitted, match="belongs to company as well"):
        await clinic.submit(training)
    program = await clinic.request(training.kept, "to train it further")
    await company.approve(program, runs=8)
    assert await clinic.approved(program, timeout=20)
    return training


async def test_a_stored_network_is_trained_further_and_nobody_sees_it(site):
    options, weights = {**OPTIONS, "steps": 1, "epochs": 1.0}, {name: w * 2 for name, w in initial(NET).items()}
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(Model(NET, weights), "base")
        await company.allow("base", "clinic", schema=True)
        data = [await clinic.upload(data_set(2, 12), "data")]
        base = await clinic.model("company/base")
        with pytest.raises(NotPermitted):
            await clinic.training(base, data, CrossEntropyLoss(), SOFT, **options)
        training = await begun_with(clinic, company, base, data, **options)
        assert training.model.joint == ("company",) and (training.model.parts, training.checkpoints) == (0, 2)
        model = await clinic.train(base, data, CrossEntropyLoss(), SOFT, **options)
        assert model.parts == 2
        w = model["out.weight"]
        with pytest.raises(NotPermitted):
            await clinic.reveal(w)
        await company.allow("clinic/net", "clinic", [clinic.digest(w)])
        expected, _ = twin(training, [rows(2, 12)], SOFT, start=weights)
        assert await clinic.reveal((await clinic.model("net"))["out.weight"]) == pytest.approx(expected, abs=1e-3)


async def test_rows_come_in_an_order_that_nobody_knows(site):
    """They are stored so once, by the leave of their owners."""
    await owned(site)
    async with site.client() as clinic, site.client("company") as company:
        data, how = await sets(clinic), {**OPTIONS, "order": "secret", "epochs": 2 / 3}
        with pytest.raises(NotPermitted):
            await clinic.training(NET, data, CrossEntropyLoss(), SOFT, **how)
        await company.allow("data", "clinic", [clinic.digest(mixed(data))])
        training = await clinic.training(NET, await sets(clinic), CrossEntropyLoss(), SOFT, **how)
        assert training.rows == (6,) and (await clinic.data("net-rows")).description.tensors["x"].shape == (18, 4)
        fewer = {**how, "name": "other"}
        await clinic.upload(data_set(1, 12), "other-rows")
        with pytest.raises(UsageError, match="something else than all rows together"):
            await clinic.training(NET, data, CrossEntropyLoss(), SOFT, **fewer)
        await company.approve(await clinic.request(training.kept, "to learn from both"))
        model = await clinic.train(NET, data, CrossEntropyLoss(), SOFT, **how)
        assert model.parts == 1


@pytest.mark.slow
async def test_what_is_found_out_on_the_way(site):
    """By the very program that owners are asked about; and it says what predictions say, and what the losses are."""
    await owned(site)
    async with site.client() as clinic, site.client("company") as company:
        data = await sets(clinic)
        checked = await clinic.upload(data_set(3, 9), "checked")
        how = {**OPTIONS, "validate": [checked], "losses": True}
        training = await clinic.training(NET, data, CrossEntropyLoss(), SOFT, **how)
        program = await clinic.request(training.kept, "to tell three kinds apart")
        shown = str(await company.show(program))
        assert "gives    clinic 1 number: result 1" in shown and "6 numbers (2 x 3): result 2" in shown
        await company.approve(program)
        made = await anext(aiter(training))
        await company.allow("clinic/net", "clinic")
        x, y = rows(3, 9)
        answers = (await clinic.predict(training.model, x)).argmax(1)
        found = [int((answers[y[:, kind] > 0] == kind).sum()) for kind in range(CLASSES)]
        assert made.scores.found == pytest.approx(found, abs=1e-2)
        assert made.scores.there == pytest.approx(y.sum(0), abs=1e-2)
        assert made.to_dict()["accuracy"] == pytest.approx(sum(found) / 9, abs=1e-2)
        losses = twin_losses(training, [rows(1, 12), rows(2, 6)], SOFT)
        assert made.to_dict()["loss"] == pytest.approx(np.mean(losses[:2]), abs=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 13}, "a batch of 13 rows"),
        ({"steps": -1}, "at least one step"),
        ({"epochs": 0.01}, "at least one step"),
    ],
)
async def test_what_cannot_be_trained(site, change, message):
    async with site.client() as clinic:
        data = [await clinic.upload(data_set(1, 12), "data")]
        with pytest.raises(UsageError, match=message):
            await clinic.training(NET, data, CrossEntropyLoss(), SOFT, **{**OPTIONS, **change})
        other = await clinic.upload(DataSet({"a": [0.5]}, low=0, high=1), "other")
        with pytest.raises(UsageError, match="rows to learn from are called x"):
            await clinic.training(NET, [other], CrossEntropyLoss(), SOFT, **OPTIONS)


@pytest.mark.parametrize(
    ("there", "batch", "expected"),
    [((100,), 32, (32,)), ((60, 36), 16, (10, 6)), ((1000, 1), 32, (31, 1)), ((5, 5, 5), 4, (2, 1, 1))],
)
def test_a_batch_is_of_all_owners(there, batch, expected):
    assert shares(there, batch) == expected
