"""Members of a cluster in this process that cheat, and sign what they say as an honest member would."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace

from mpc.rings import field
from parties.messages.evidence import (
    PURPOSE,
    InputsSaid,
    ItemSaid,
    PartsSaid,
    digest_of,
    signed_bytes,
)
from parties.messages.runs import Inputs, Opening
from parties.messages.stock import Agreed
from parties.messages.uploads import UploadChunk, UploadSigned
from parties.operate import evidence as kept
from protocols.readings.mac_check import from_words, to_words

Said = tuple[Any, Sequence[Any]]


def sign(site: Any, name: str, said: Any) -> bytes:
    return site.keys[name].sign(PURPOSE, signed_bytes(said))


def corrupt_towards(site: Any, server: str, victim: str, change: Callable[[Any, list[Any]], list[Said]]) -> None:
    """From now on ``server`` sends ``victim`` what ``change(message, buffers)`` makes of each message."""
    endpoint = site.servers[server].endpoint
    honest = type(endpoint).send

    def send(peer: str, message: Any, buffers: Sequence[Any] = (), **options: Any) -> int:
        said = change(message, list(buffers)) if peer == victim else [(message, buffers)]
        return sum(honest(endpoint, peer, *words, **options) for words in said)

    endpoint.send = send


def off_by_one(buffer: Any) -> np.ndarray:
    """Other field elements than these."""
    array = np.frombuffer(bytes(buffer), np.uint64)
    changed = array.copy()
    changed[:1] = field.add(array[:1], np.ones(min(1, array.size), np.uint64))
    return changed


def evidence(site: Any, name: str) -> list[Any]:
    """What that server has kept."""
    return [piece for _, piece in kept.found(site.data(name))]


# -- clients ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def speaking(client: Any, change: Callable[[str, Any, Sequence[Any]], Said | None]) -> Iterator[None]:
    """The client sends ``change(server, message, buffers)``; nothing for None."""
    board = client._board
    honest = board.send

    def send(server: str, message: Any, payload: Sequence[Any] = ()) -> int:
        said = change(server, message, payload)
        return 0 if said is None else int(honest(server, *said))

    board.send = send
    try:
        yield
    finally:
        board.send = honest


def other_inputs(site: Any, client: Any, victim: str, *, signature: bytes | None = None) -> Any:
    """The client sends ``victim`` other inputs, signed unless there is a ``signature``."""
    name = client.member.name

    def change(server: str, message: Any, payload: Sequence[Any]) -> Said:
        if not isinstance(message, Inputs) or server != victim:
            return message, payload
        other = [off_by_one(buffer) for buffer in payload]
        job = site.servers[victim].jobs[message.run]
        of = job.testimony._of
        said = InputsSaid(of.cluster, of.run, of.program, of.bindings, digest_of([b.data for b in other]))
        return replace(message, signature=sign(site, name, said) if signature is None else signature), other

    return speaking(client, change)


def other_parts(site: Any, client: Any, victim: str, *, signed: bool = True) -> Any:
    """The owner sends ``victim`` other parts of its upload, and signs that unless it does not."""
    name, state = client.member.name, hashlib.sha256()

    def change(server: str, message: Any, payload: Sequence[Any]) -> Said:
        if server != victim:
            return message, payload
        if isinstance(message, UploadChunk):
            other = off_by_one(payload[0])
            state.update(other.data)
            return message, [other]
        if isinstance(message, UploadSigned) and signed:
            said = PartsSaid(site.cluster.circle, message.version, state.hexdigest())
            return replace(message, signature=sign(site, name, said)), payload
        return message, payload

    return speaking(client, change)


# -- parties ---------------------------------------------------------------------------------------------------------


def lie_about_item(site: Any, party: str, victim: str, *, signed: bool = True) -> None:
    """The party says to ``victim`` that it has marked another item used than it has."""

    def change(message: Any, buffers: list[Any]) -> list[Said]:
        if isinstance(message, Agreed):
            message = replace(message, number=message.number + 1)
            said = ItemSaid(site.servers[party].proofs.subject_of(message))
            message = replace(message, signature=sign(site, party, said) if signed else b"garbage")
        return [(message, buffers)]

    corrupt_towards(site, party, victim, change)


def wrong_sigma(site: Any, party: str) -> None:
    """The party opens, signs and had committed to, a sigma that is wrong: the check fails at all others."""
    server = site.servers[party]
    honest = type(server)._prepared

    def prepared(job: Any, client: Any, made: Any, *rest: Any) -> None:
        run = made.run
        sigma = run._check._sigma
        run._check._sigma = lambda *arguments: field.add(sigma(*arguments), np.ones(1, np.uint64))
        honest(server, job, client, made, *rest)

    server._prepared = prepared


def other_sigma(site: Any, party: str, rounds: int) -> None:
    """Likewise, and its own check, with the sigma that is right, passes."""
    server = site.servers[party]
    prepare, send = type(server)._prepared, server.online._sent

    def prepared(job: Any, client: Any, made: Any, *rest: Any) -> None:
        check, index = made.run._check, server.member.index
        commit = check._commit

        def committed(purpose: bytes, who: int, secret: bytes) -> bytes:
            mine = purpose == b"sigma" and who == index
            return commit(purpose, who, off_by_one(secret).tobytes() if mine else secret)

        check._commit = committed
        prepare(server, job, client, made, *rest)

    def sent(job: Any, message: Any, outgoing: Any) -> None:
        if message is not None and message.round == rounds + 2:
            outgoing = [off_by_one(outgoing[0])]
            said = replace(job.testimony._by_party[party].sigma.said, opening=outgoing[0].tobytes())
            message = replace(message, signature=sign(site, party, said))
        send(job, message, outgoing)

    server._prepared, server.online._sent = prepared, sent


def honest_again(site: Any, party: str) -> None:
    """It ends whatever of the above it did."""
    server = site.servers[party]
    server.__dict__.pop("_prepared", None)
    server.online.__dict__.pop("_sent", None)
    site.restore(party)


def break_commitment(site: Any, party: str, rounds: int, *, signed: bool = True) -> None:
    """The party opens another sigma than it had committed to, and signs both."""
    online = site.servers[party].online
    honest = online._sent

    def sent(job: Any, message: Any, outgoing: Any) -> None:
        if message is not None and message.round == rounds + 2:
            outgoing = [off_by_one(outgoing[0])]
            mine = job.testimony._by_party[party]
            said = replace(mine.sigma.said, opening=outgoing[0].tobytes())
            message = replace(message, signature=sign(site, party, said) if signed else b"")
        honest(job, message, outgoing)

    online._sent = sent


def break_coin(site: Any, party: str, rounds: int) -> None:
    """The party opens another coin than it had committed to, and signs both."""
    online = site.servers[party].online
    honest = online._sent

    def sent(job: Any, message: Any, outgoing: Any) -> None:
        if message is not None and message.round == rounds:
            seen, coin = outgoing[0][:8], to_words(b"another coin of thirty-two bytes"[:32])
            outgoing = [np.concatenate([seen, coin])]
            said = replace(job.testimony._by_party[party].seen.said, coin=from_words(coin))
            message = replace(message, signature=sign(site, party, said))
        honest(job, message, outgoing)

    online._sent = sent


def equivocate(site: Any, party: str, victim: str, rounds: int) -> None:
    """The party opens something else to ``victim`` than to others, and signs to each what it has told it."""
    jobs = site.servers[party].jobs
    corrupt_towards(site, party, victim, equivocation(site, party, rounds, lambda run: jobs[run].testimony))


def equivocation(
    site: Any, party: str, rounds: int, testimony_of: Callable[[str], Any]
) -> Callable[[Any, list[Any]], list[Said]]:
    """What one who is told something else is sent in place of a message."""
    state = hashlib.sha256()

    def change(message: Any, buffers: list[Any]) -> list[Said]:
        if not isinstance(message, Opening):
            return [(message, buffers)]
        if message.round == 0:
            buffers = [off_by_one(buffers[0])]
        if message.round < rounds:
            for buffer in buffers:
                state.update(np.ascontiguousarray(buffer).data)
        if message.round == rounds:
            mine = testimony_of(message.run)._by_party[party].seen.said
            message = replace(message, signature=sign(site, party, replace(mine, sent=state.digest())))
        return [(message, buffers)]

    return change


def other_hash(site: Any, party: str, rounds: int) -> None:
    """The party says, under its signature, that it has seen something else than it was sent."""
    online = site.servers[party].online
    honest = online._sent

    def sent(job: Any, message: Any, outgoing: Any) -> None:
        if message is not None and message.round == rounds:
            outgoing = [outgoing[0] ^ np.uint64(1)]
            outgoing[0][8:] ^= np.uint64(1)
            said = replace(job.testimony._by_party[party].seen.said, seen=from_words(outgoing[0][:8]))
            message = replace(message, signature=sign(site, party, said))
        honest(job, message, outgoing)

    online._sent = sent
