"""Results that stay on the parties: under a name, with an owner, in use everywhere or nowhere, and seen by nobody."""

import asyncio

import numpy as np
import pytest

from mpc.errors import (
    CaughtCheating,
    NotPermitted,
    PeerError,
    PeerLost,
    ProgramError,
    ProtocolViolation,
    RemoteError,
    ServerBusy,
    UsageError,
)
from nn import Linear, Model, Sequential
from parties import DataSet
from parties.messages.runs import Failed, Opening, Prepare
from parties.messages.uploads import VersionPrepared, VersionsHeld
from parties.stored.uploads import MAX_OF_A_CLIENT
from parties.wire.events import Delivery
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import graph_of


def keeping(results):
    """The program that keeps these values under these names, and reveals nothing."""
    return plan(graph_of([], results), checked=True)


X = np.linspace(-1, 1, 12).reshape(4, 3)


def nothing_left(site):
    """No server remembers anything of a run that was to keep something."""
    dealer, parties = site.servers["dealer"], [site.servers[name] for name in ("party0", "party1")]
    return not dealer._coordinator._uploads and not any(party._secrets.prepared for party in parties)


async def test_from_a_value_to_a_later_run(either):
    async with either.client() as clinic:
        s = clinic.share([0.5, -0.25, 1.0], low=-1, high=1)
        kept = await clinic.keep({"square": s * s, "s": s}, "result")
        assert (kept.owner, list(kept)) == ("clinic", ["square", "s"])
        report = clinic.last_run
        assert report is not None
        assert report.online.rounds == report.predicted.online_rounds
        assert report.online.bytes == report.predicted.online_bytes_per_party
    await either.restart("dealer", "party0", "party1")
    async with either.client() as clinic:
        found = await clinic.data("result")
        assert await clinic.reveal(found["square"] * 2) == pytest.approx([0.5, 0.125, 2.0], abs=1e-3)
        again = await clinic.keep({"sum": (found["square"] + found["s"]).sum()}, "result")
        assert await clinic.reveal(again["sum"]) == pytest.approx(1.3125 + 1.25, abs=1e-3)
        # The version before is gone, and with it what read it.
        with pytest.raises((ProgramError, RemoteError)):
            await clinic.reveal(found["square"])
    assert nothing_left(either)


async def test_nobody_is_sent_anything_that_tells_of_it(site):
    heard = {name: [] for name in site.servers}
    for name, said in heard.items():
        site.overhear(name, said)
    async with site.client() as clinic:
        for value in (0.0, 1.0):
            s = clinic.share(np.full(200, value), low=-1, high=1)
            await clinic.keep({"s": s}, "result")
    said = [buffer for name in ("party0", "party1") for buffer in heard[name] if len(buffer) == 200 * 8]
    openings = [np.frombuffer(buffer, np.uint64) for buffer in said]
    assert len(openings) == 4, "one from each party to the other, of each run; the client is sent none"
    for array in openings:
        # Of 200 uniform elements of 61 bits, a fifth at least lies in either half.
        assert 40 < (array > 2**60).sum() < 160


async def test_who_may_have_it_revealed(site):
    async with site.client() as clinic, site.client("company") as company:
        kept = await clinic.keep({"s": clinic.share([0.5], low=-1, high=1) * 2}, "result")
        with pytest.raises(NotPermitted, match="nothing called 'result' for us"):
            await company.data("result")
        await clinic.allow("result", "company", [clinic.digest(kept["s"])])
        assert await company.reveal((await company.data("result"))["s"]) == pytest.approx([1.0], abs=1e-3)
        with pytest.raises(NotPermitted):
            await company.reveal((await company.data("result"))["s"] * 2)
        # What the company calls so is its own.
        own = await company.keep({"s": company.share([0.25])}, "result")
        assert await company.reveal(own["s"]) == pytest.approx([0.25], abs=1e-3)
        assert await clinic.reveal((await clinic.data("result"))["s"]) == pytest.approx([1.0], abs=1e-3)
    assert nothing_left(site)


async def test_keeping_is_a_program_of_its_own(site):
    """Who may predict may not keep; who may keep has been allowed that very program."""
    architecture = Sequential({"out": Linear(3, 2)}).architecture((3,))
    model = Model(architecture, {n: np.full(s, 0.5) for n, s in architecture.parameters.items()})
    async with site.client() as clinic, site.client("company") as company:
        await company.upload(model, "m")
        await company.allow("m", "clinic")
        m, data = await clinic.model("m"), await clinic.upload(DataSet({"x": X}, low=-1, high=1), "trial")
        with pytest.raises(NotPermitted, match="may only have 'm' predict"):
            await clinic.keep({"y": m(data["x"])}, "result")
        await company.allow("m", "clinic", ["predict", keeping({"y": m(data["x"])}).digest])
        kept = await clinic.keep({"y": m(data["x"])}, "result")
        assert await clinic.reveal(kept["y"]) == pytest.approx(model.plain(X), abs=1e-3)
        with pytest.raises(NotPermitted):
            await clinic.keep({"z": m(data["x"])}, "result")
        # What was kept by a rule is the client's, as what was revealed is: taking the rule back undoes neither.
        await company.allow("m", "clinic", [])
        assert await clinic.reveal(kept["y"]) == pytest.approx(model.plain(X), abs=1e-3)
        with pytest.raises(NotPermitted):
            await clinic.keep({"y": m(data["x"])}, "result")


# -- everywhere or nowhere -----------------------------------------------------------------------------------------


async def refused(site, error, match=None):
    """A run that keeps fails so; what was there before is there, and nothing is left."""
    async with site.client() as clinic:
        before = await clinic.keep({"s": clinic.share([0.25], low=-1, high=1)}, "result")
    async with site.client() as clinic:
        yield before, clinic
        s = clinic.share([0.5], low=-1, high=1)
        with pytest.raises(error, match=match):
            await clinic.keep({"s": s * s}, "result")
        for name in site.servers:
            site.restore(name)
        await site.settled()
        await site.until(lambda: nothing_left(site))
        assert await clinic.reveal((await clinic.data("result"))["s"]) == pytest.approx([0.25], abs=1e-3)


async def test_a_party_that_sends_nonsense(site):
    async for _ in refused(site, ProtocolViolation, "party1"):
        site.corrupt("party1", Opening, lambda m, b: [(m, [b[0][:-1]])])


async def test_a_party_that_cheats(strict):
    def off_by_one(message, buffers):
        changed = np.frombuffer(buffers[0], np.uint64).copy()
        changed[0] ^= np.uint64(1)
        return [(message, [changed])]

    async for _ in refused(strict, CaughtCheating, "party1"):
        strict.corrupt("party1", Opening, off_by_one)


async def test_a_party_whose_word_is_lost_says_it_again(site):
    site.corrupt("party1", VersionPrepared, lambda m, b: [])
    async with site.client() as clinic:
        kept = await clinic.keep({"s": clinic.share([0.5], low=-1, high=1)}, "result")
        assert await clinic.reveal(kept["s"]) == pytest.approx([0.5], abs=1e-3)
    assert nothing_left(site)


async def test_a_party_that_never_says_that_it_has_it(site):
    async for _ in refused(site, PeerLost, "VersionReady"):
        site.corrupt("party1", (VersionPrepared, VersionsHeld), lambda m, b: [])


async def test_a_party_whose_disk_is_full(site, monkeypatch):
    def full(*_):
        raise ProgramError("no space is left")

    async for _ in refused(site, ProgramError, "no space"):
        monkeypatch.setattr(site.servers["party1"]._secrets._disk, "prepare", full)


async def test_a_client_that_goes_away(site):
    async with site.client() as clinic:
        reached = asyncio.Event()

        def stall(message, buffers):
            reached.set()
            return []

        site.corrupt("party1", Opening, stall)
        task = asyncio.create_task(clinic.keep({"s": clinic.share([0.5], low=-1, high=1)}, "result"))
        await reached.wait()
        assert site.servers["dealer"]._coordinator._uploads
        # As if it had been killed: nothing is said any more.
        clinic._board.tell = lambda *_: None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    site.restore("party1")
    await site.settled()
    await site.until(lambda: nothing_left(site))
    async with site.client() as clinic:
        with pytest.raises(NotPermitted):
            await clinic.data("result")


@pytest.mark.parametrize("name", ["dealer", "party0"])
async def test_a_server_that_is_restarted_in_the_middle(site, name):
    async with site.client() as clinic:
        prepared = asyncio.Event()

        def hold(message, buffers):
            prepared.set()
            return []

        site.corrupt("party1", VersionPrepared, hold)
        task = asyncio.create_task(clinic.keep({"s": clinic.share([0.5], low=-1, high=1)}, "result"))
        await prepared.wait()
        await site.restart(name)
        with pytest.raises(PeerError):
            await task
        site.restore("party1")
        await site.until(lambda: nothing_left(site))
        await clinic.keep({"s": clinic.share([0.75], low=-1, high=1)}, "result")
        assert await clinic.reveal((await clinic.data("result"))["s"]) == pytest.approx([0.75], abs=1e-3)


# -- what is refused -----------------------------------------------------------------------------------------------


async def test_what_cannot_be_kept(site):
    async with site.client() as clinic:
        s = clinic.share([0.5], low=-1, high=1)
        with pytest.raises(UsageError, match="nothing to keep"):
            await clinic.keep({}, "result")
        with pytest.raises(UsageError, match="is not a name"):
            await clinic.keep({"s": s}, "no name")
        dealer = site.servers["dealer"]
        dealer._coordinator._uploads.update({f"{i:032x}": _pending(site, i) for i in range(MAX_OF_A_CLIENT)})
        with pytest.raises(ServerBusy, match="uploads that are not complete"):
            await clinic.keep({"s": s}, "result")
        dealer._coordinator._uploads.clear()
    await site.settled()


def _pending(site, number):
    from parties.servers.pending_upload import PendingUpload
    from protocols.readings.dealer import StoredMasks

    return PendingUpload(site.cluster.member("clinic"), f"m{number}", StoredMasks((), {}))


@pytest.mark.parametrize("keep", ["", "result"])
async def test_a_name_without_anything_to_keep_and_the_reverse(site, keep):
    async with site.client() as clinic:
        s = clinic.share([0.5], low=-1, high=1)
        program = clinic._written(s * 2).program if keep else keeping({"s": s})
    endpoint = site.endpoint("company")
    async with endpoint:
        await endpoint.connect(deadline=20)
        for name in site.servers:
            endpoint.send(name, Prepare(run="a" * 32, keep=keep), [program.encode()])
        async with asyncio.timeout(20):
            while True:
                event = await endpoint.receive()
                if isinstance(event, Delivery) and isinstance(event.message, Failed):
                    assert event.message.fault.error == "ProtocolViolation"
                    assert "under no name, or nothing under one" in event.message.fault.reason
                    break
    await site.settled()
    assert nothing_left(site)
