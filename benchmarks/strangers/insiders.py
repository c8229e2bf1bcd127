"""What members of a cluster do to the others' runs: two clients, from a process of their own, or one of the parties.

A party attacks from within its server (`benchmarks.strangers.cheating_party`).  All that they send is legal but for the
longest descriptions, the early openings and the false ids: it is the amount that is the attack.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.strangers.process import BEGINS, NICE, UNDER_WAY, when_stdin_closes
from mpc.errors import TesseraError
from mpc.operation import Input
from nn import Linear, Model, Sequential
from parties import AsyncClient, Cluster, KeyPair
from parties.messages.conversation import ConversationMessage
from parties.messages.rules import AllowUse, Rule, RuleSet
from parties.messages.runs import Opening, Prepare, Release
from parties.messages.stock import Agreed, Stock
from parties.messages.stored import RemoveSecret
from parties.messages.uploads import TensorInfo, Upload, UploadBegin
from parties.stored.quotas import MAX_DESCRIPTION
from parties.stored.rules import signed
from parties.wire.events import Delivery, LinkFault
from parties.wire.messages import Message, Ping
from parties.wire.transport import Endpoint
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import graph_of, leaf

VICTIM = "honest"
CLIENTS = ("mallory", "trudy")
MODEL = "attacked"
"""The victim's, which everybody may have predict."""

PROGRAMS = 12
RULES = PINGS = 3000
FALSE_IDS = 1024
_STEPS = 3200
"""Of a program of 16,000 nodes."""


@dataclass
class Tally:
    """What came of an attack: messages (or calls), bytes, and what the servers said, by class of error."""

    sent: int = 0
    sent_bytes: int = 0
    unsent: int = 0
    """The connection took no more."""
    refused: dict[str, int] = field(default_factory=dict)

    def note(self, error: str) -> None:
        """A server has refused something with that error."""
        self.refused[error] = self.refused.get(error, 0) + 1


class Attacker:
    """One client's links, on which it says what it likes; answers are counted and read no further."""

    def __init__(self, cluster: Cluster, keys: KeyPair, endpoint: Endpoint, tally: Tally) -> None:
        self.cluster, self.keys = cluster, keys
        self.servers = [server.name for server in cluster.servers]
        self.parties = [party.name for party in cluster.parties]
        self.dealer = cluster.dealer.name
        self.name = endpoint.me.name
        self.largest = cluster.max_message_bytes
        self._endpoint, self._tally = endpoint, tally

    def send(self, server: str, message: Message, payload: Sequence[bytes] = ()) -> None:
        """Whether or not it can be sent."""
        try:
            self._tally.sent_bytes += self._endpoint.send(server, message, payload)
            self._tally.sent += 1
        except TesseraError:
            self._tally.unsent += 1

    async def listen(self) -> None:
        """For ever."""
        while True:
            event = await self._endpoint.receive()
            if isinstance(event, LinkFault):
                self._tally.note(type(event.error).__name__)
            if isinstance(event, Delivery) and isinstance(event.message, ConversationMessage):
                failure = event.message.failure
                if failure is not None:
                    self._tally.note(failure.error)


@functools.cache
def _deep() -> bytes:
    """A legal program of 16,000 nodes, 2.2 MB, and next to no elements."""
    x = leaf(Input((1,), 16, -1.0, 1.0))
    y = x
    for _ in range(_STEPS):
        y = y * 0.5 + x
    return plan(graph_of([y])).encode()


@functools.cache
def _large() -> bytes:
    x = leaf(Input((400_000,), 16, -1.0, 1.0))
    return plan(graph_of([x * x])).encode()


def _ids() -> Iterator[str]:
    while True:
        yield secrets.token_hex(16)


async def _heavy_programs(attacker: Attacker) -> None:
    """Twelve programs of 16,000 nodes a second, each given up a second later."""
    data = _deep()
    while True:
        runs = list(itertools.islice(_ids(), PROGRAMS))
        for run, server in itertools.product(runs, attacker.servers):
            attacker.send(server, Prepare(run=run), [data])
        await asyncio.sleep(1)
        for run, server in itertools.product(runs, attacker.servers):
            attacker.send(server, Release(run=run))


async def _heavy_orders(attacker: Attacker) -> None:
    """Such programs to be dealt for, and kept in stock."""
    data = _deep()
    while True:
        for request in itertools.islice(_ids(), PROGRAMS):
            attacker.send(attacker.dealer, Stock(request=request, count=2, low_water=1), [data])
        await asyncio.sleep(1)


async def _dealt_alone(attacker: Attacker) -> None:
    """Runs that the dealer alone is asked for: the parties are left with what is dealt."""
    data = _large()
    while True:
        for run in itertools.islice(_ids(), PROGRAMS):
            attacker.send(attacker.dealer, Prepare(run=run), [data])
        await asyncio.sleep(1)


async def _long_descriptions(attacker: Attacker) -> None:
    """Uploads of next to nothing, of which as much is said as goes into a message; or, of eight, as is taken."""
    tensors, taken = (TensorInfo("w", (2,)),), MAX_DESCRIPTION - 1024
    while True:
        for version, size in zip(_ids(), (attacker.largest, *[taken] * 8), strict=False):
            name, said = f"long-{version[:8]}", [bytes(size)]
            begin = Upload(version=version, name=name, tensors=tensors, content=2 * version)
            attacker.send(attacker.dealer, begin, said)
            for party in attacker.parties:
                joined = UploadBegin(version=version, name=name, tensors=tensors, masks=2 * version, attempt=version)
                attacker.send(party, joined, said)
        await asyncio.sleep(3)


async def _logged_lines(attacker: Attacker) -> None:
    """What is refused, and logged: five hundred times a second."""
    while True:
        for request in itertools.islice(_ids(), 50):
            for server in attacker.servers:
                attacker.send(server, RemoveSecret(request=request, name="nothing"))
        await asyncio.sleep(0.1)


async def _bursts(count: int) -> AsyncIterator[int]:
    """Numbers, so many at once: when measuring begins, since whoever is flooded shows one out, and every 3 s."""
    await asyncio.sleep(UNDER_WAY)
    for first in itertools.count(step=count):
        for number in range(first, first + count):
            yield number
        await asyncio.sleep(3)


async def _rules(attacker: Attacker) -> None:
    """Three thousand rules at once, again and again; signed once, as who repeats itself needs no more."""
    rules = RuleSet(attacker.name, attacker.name, 1, (Rule("*", "predict", 1),))
    said = signed(attacker.keys, attacker.cluster, attacker.cluster.member(attacker.name), rules).payload
    async for number in _bursts(RULES):
        for server in attacker.servers:
            attacker.send(server, AllowUse(request=f"{number:032x}"), said)


async def _pings(attacker: Attacker) -> None:
    """As many questions whether the servers are there."""
    async for number in _bursts(PINGS):
        for server in attacker.servers:
            attacker.send(server, Ping(number))


def small_model() -> Model:
    """One that is uploaded in no time."""
    architecture = Sequential({"a": Linear(2, 2)}).architecture((2,))
    return Model(architecture, {name: np.ones(shape) for name, shape in architecture.parameters.items()})


async def _all_names(client: AsyncClient, tally: Tally) -> None:
    """Models under names of its own, as many as it is given."""
    for number in itertools.count():
        tally.sent += 1
        await client.upload(small_model(), f"{client.member.name}-{number}")


async def _burnt_stock(client: AsyncClient, tally: Tally) -> None:
    """What the victim has in stock is prepared, and given up."""
    model = await client.model(MODEL)
    x = client.share(np.zeros((1, 3, 28, 28)), low=-1.0, high=0.5)
    while True:
        tally.sent += 1
        await client.release(await client.prepare(model(x)))


RAW: dict[str, Callable[[Attacker], Coroutine[None, None, None]]] = {
    "heavy programs": _heavy_programs,
    "heavy orders": _heavy_orders,
    "dealt alone": _dealt_alone,
    "long descriptions": _long_descriptions,
    "flood of rules": _rules,
    "delayed uploads": _rules,
    "flood of pings": _pings,
    "logged lines": _logged_lines,
}
POLITE: dict[str, Callable[[AsyncClient, Tally], Coroutine[None, None, None]]] = {
    "all names": _all_names,
    "burnt stock": _burnt_stock,
}


PREPARED: dict[str, Callable[[], bytes]] = {"heavy programs": _deep, "heavy orders": _deep, "dealt alone": _large}
"""What takes its time before there is an attack."""


async def _early_openings(endpoint: Endpoint, target: str) -> None:
    """Openings of runs that nobody has heard of, each as large as a message may be, and one a second."""
    opening = bytes(endpoint.cluster.max_message_bytes)
    for run in _ids():
        with contextlib.suppress(TesseraError):
            endpoint.send(target, Opening(run=run, round=0), [opening])
        await asyncio.sleep(1)


async def _false_ids(endpoint: Endpoint, target: str) -> None:
    """It has agreed to what it was never assigned."""
    while True:
        for run in itertools.islice(_ids(), FALSE_IDS):
            said = Agreed(run=run, program=2 * run, bindings=2 * run, session=run, number=1, signature=b"")
            with contextlib.suppress(TesseraError):
                endpoint.send(target, said)
        await asyncio.sleep(0.2)


PARTY: dict[str, Callable[[Endpoint, str], Coroutine[None, None, None]]] = {
    "early openings": _early_openings,
    "false ids": _false_ids,
}

ATTACKS = (*RAW, *POLITE, *PARTY)


async def _attack(
    name: str, cluster: Cluster, keys: KeyPair, member: str, tally: Tally, ready: asyncio.Barrier
) -> None:
    """Until it is cancelled, and anew when it has failed; it begins when all are connected."""
    if name in POLITE:
        async with AsyncClient(cluster, keys) as client:
            await ready.wait()
            while True:
                try:
                    await POLITE[name](client, tally)
                except TesseraError as error:
                    tally.note(type(error).__name__)
                    await asyncio.sleep(0.05)
    if RAW[name] is _rules:
        async with AsyncClient(cluster, keys) as client:
            await client.upload(small_model(), member)
    endpoint = Endpoint(cluster, cluster.member(member), keys, bind=False)
    async with endpoint:
        await endpoint.connect()
        await ready.wait()
        attacker = Attacker(cluster, keys, endpoint, tally)
        await asyncio.gather(attacker.listen(), RAW[name](attacker))


async def _until_stdin_closes(name: str, folder: Path) -> Tally:
    stop, loop, tally = when_stdin_closes(), asyncio.get_running_loop(), Tally()
    cluster = Cluster.load(folder / "cluster.toml")
    if name in PREPARED:
        PREPARED[name]()
    ready = asyncio.Barrier(len(CLIENTS) + 1)
    tasks = [
        loop.create_task(_attack(name, cluster, KeyPair.load(folder / f"{member}.key"), member, tally, ready))
        for member in CLIENTS
    ]
    begun, stopping = loop.create_task(ready.wait()), loop.create_task(stop.wait())
    await asyncio.wait({*tasks, begun, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if begun.done():
        print(BEGINS, flush=True)
        await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
    failed = [task for task in tasks if task.done()]
    for task in (*tasks, begun):
        task.cancel()
    await asyncio.gather(*tasks, begun, return_exceptions=True)
    for task in failed:
        task.result()
    return tally


def main(arguments: list[str]) -> None:
    """An attack's name, and the folder of the cluster file and the attackers' keys."""
    name, folder = arguments
    os.nice(NICE)
    print(json.dumps(asdict(asyncio.run(_until_stdin_closes(name, Path(folder))))))


if __name__ == "__main__":
    main(sys.argv[1:])
