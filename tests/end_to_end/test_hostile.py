"""Members of the cluster who break the rules, and strangers: refused with a typed error; nobody else is disturbed."""

from __future__ import annotations

import asyncio
import secrets

import numpy as np
import pytest

from mpc.errors import AuthenticationError, PeerError, ProgramError, TesseraError
from mpc.operation import Input
from mpc.program import Program
from parties import AsyncClient, Client, Cluster, KeyPair
from parties.messages.bindings import BoundProgram
from parties.messages.evidence import PURPOSE, InputsSaid, digest_of, signed_bytes
from parties.messages.failures import error_of
from parties.messages.runs import Dealt, Failed, Inputs, Opening, Prepare, Ready
from parties.wire.events import Delivery
from parties.wire.transport import Endpoint
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import graph_of, leaf


def program() -> bytes:
    x = leaf(Input((3,), 16, -1.0, 1.0))
    return plan(graph_of([x.sigmoid() * x])).encode()


class Rude:
    """A client with a good key and bad manners."""

    def __init__(self, cluster):
        self.cluster, self.keys = cluster.cluster, cluster.client_keys["company"]
        self.endpoint = Endpoint(self.cluster, self.cluster.member("company"), self.keys, bind=False)
        self.run = secrets.token_hex(16)

    async def __aenter__(self):
        await self.endpoint.start()
        await self.endpoint.connect(deadline=30)
        return self

    async def __aexit__(self, *_):
        await self.endpoint.close()

    def send(self, message, buffers=(), to=("dealer", "party0", "party1")):
        for name in to:
            self.endpoint.send(name, message, buffers)

    def send_inputs(self, buffers) -> None:
        """To both parties, duly signed."""
        bound = BoundProgram(Program.decode(program()), (), "company")
        of = self.cluster.terms, self.run, bound.program.digest, bound.bindings_digest
        signature = self.keys.sign(PURPOSE, signed_bytes(InputsSaid(*of, digest_of(buffers))))
        self.send(Inputs(run=self.run, masks="", signature=signature), buffers, to=("party0", "party1"))

    async def failure(self) -> TesseraError:
        """What the servers say of it."""
        async with asyncio.timeout(30):
            while True:
                event = await self.endpoint.receive()
                if isinstance(event, Delivery) and isinstance(event.message, Failed):
                    return error_of(event.message.fault, event.sender.name)

    async def ready(self) -> None:
        self.send(Prepare(run=self.run), [program()])
        waiting = {"party0", "party1"}
        async with asyncio.timeout(30):
            while waiting:
                event = await self.endpoint.receive()
                if isinstance(event, Delivery) and isinstance(event.message, Ready):
                    waiting.discard(event.sender.name)


def serves_others(cluster) -> None:
    with Client(cluster, name="clinic") as client:
        assert client.reveal(client.share([0.5], low=-1, high=1) * 2) == pytest.approx([1.0], abs=1e-3)


@pytest.mark.parametrize(
    "made",
    [
        lambda: b"",
        lambda: b"rubbish",
        lambda: program()[:-7],
        lambda: program() + b"x",
        lambda: secrets.token_bytes(5000),
    ],
    ids=range(5),
)
async def test_what_is_no_program(clusters, made):
    async with Rude(clusters(2)) as rude:
        rude.send(Prepare(run=rude.run), [made()])
        assert isinstance(await rude.failure(), ProgramError)
    serves_others(clusters(2))


async def test_different_programs_for_one_run(clusters):
    x = leaf(Input((3,), 16, -1.0, 1.0))
    other = plan(graph_of([x * 2])).encode()
    async with Rude(clusters(2)) as rude:
        rude.send(Prepare(run=rude.run), [program()], to=("dealer", "party0"))
        rude.send(Prepare(run=rude.run), [other], to=("party1",))
        error = await rude.failure()
        assert isinstance(error, ProgramError)
        assert "different programs" in str(error)
    serves_others(clusters(2))


@pytest.mark.parametrize(
    ("buffers", "sentence"),
    [
        ([], "wrong length"),
        ([bytes(16)], "wrong length"),
        ([bytes(24), bytes(24)], "wrong length"),
        ([b"\xff" * 24], "not an array of shape"),
    ],
)
async def test_inputs_of_the_wrong_kind(clusters, buffers, sentence):
    async with Rude(clusters(2)) as rude:
        await rude.ready()
        rude.send_inputs(buffers)
        assert sentence in str(await rude.failure())
    serves_others(clusters(2))


async def test_inputs_for_a_run_that_is_not_ready_or_not_its_own(clusters):
    cluster = clusters(2)
    async with Rude(cluster) as rude, AsyncClient(cluster.cluster, cluster.client_keys["clinic"]) as clinic:
        rude.send(Inputs(run=rude.run, masks="", signature=b""), [bytes(24)], to=("party0",))
        assert "not its own" in str(await rude.failure())
        prepared = await clinic.prepare(clinic.share([0.25], low=-1, high=1) * 2)
        rude.send(Inputs(run=prepared.run, masks="", signature=b""), [bytes(8)], to=("party0", "party1"))
        await rude.failure()


async def test_a_run_id_is_not_taken_twice(clusters):
    async with Rude(clusters(2)) as rude:
        await rude.ready()
        rude.send(Prepare(run=rude.run), [program()], to=("party0",))
        assert "twice" in str(await rude.failure())
    serves_others(clusters(2))


async def test_a_client_does_not_speak_for_dealer_or_party(clusters):
    """The link refuses it, by the role of the key it came with; the run it aims at goes on."""
    cluster = clusters(2)
    async with Rude(cluster) as rude, AsyncClient(cluster.cluster, cluster.client_keys["clinic"]) as clinic:
        prepared = await clinic.prepare(clinic.share([0.5], low=-1, high=1) ** 2 * 2)
        forged = Dealt(run=prepared.run, client="clinic", program="0" * 64, bindings="0" * 64, masks="")
        rude.send(forged, [bytes(16)], to=("party0",))
        rude.send(Opening(run=prepared.run, round=0), [bytes(8)], to=("party0",))
        assert await clinic.finish(prepared) == pytest.approx([0.5], abs=1e-3)


def test_a_strangers_key_is_not_let_in(clusters):
    cluster = clusters(2).cluster
    stranger = KeyPair.generate()
    pretended = Cluster.build(
        cluster.name,
        dealer=(cluster.dealer.address or "", cluster.dealer.key),
        parties=[(p.name, p.address or "", p.key) for p in cluster.parties],
        clients=[("clinic", stranger.public)],
        settings=cluster.settings,
    )
    with pytest.raises(AuthenticationError, match="does not let us in"), Client(pretended, stranger):
        pass
    serves_others(clusters(2))


def test_nothing_secret_is_logged(clusters):
    cluster = clusters(2)
    values = np.array([0.123456789, -0.987654321])
    with Client(cluster) as client:
        client.reveal(client.share(values, low=-1, high=1) ** 2)
    text = "".join((cluster.folder / f"{name}.log").read_text() for name in cluster.processes)
    hidden = [cluster.key_path(name).read_text().split('"')[-2] for name in (*cluster.processes, "clinic")]
    for secret in (*hidden, "0.1234", "0.9876"):
        assert secret not in text


def test_errors_name_the_peer():
    assert issubclass(AuthenticationError, PeerError)
