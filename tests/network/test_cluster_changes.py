"""Links while cluster files follow one another: who stays goes on, who comes gets in, who goes is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from mpc.errors import AuthenticationError, PeerUnavailable, ProtocolViolation, VersionMismatch
from parties.local.ports import reserved_ports
from parties.members.cluster import Cluster, Member, Role
from parties.members.cluster_file import Settings
from parties.members.keys import KeyPair
from parties.members.succession import Step, Succession
from parties.wire import outbox
from parties.wire.events import Delivery, LinkFault, PeerDown
from parties.wire.following import operator
from parties.wire.messages import ChannelWanted, Hello, Message, Succeeded
from parties.wire.transport import Endpoint
from parties.wire.version import package_version
from parties.wire.wires import Trouble

from .conftest import Site, next_of, standing, until


class Remark(Message, frozen=True):
    words: str


def client(name: str, keys: KeyPair) -> Member:
    return Member(name, Role.CLIENT, 0, None, keys.public)


def followed(site: Site, succession: Succession, **changes: Any) -> Succession:
    """By a file with these changes, signed by all servers."""
    former = succession.cluster
    step = Step(succession.completed(replace(former, **changes)).dumps())
    for signer in former.signers:
        step = step.signed(signer.name, site.keys[signer.name])
    return succession.followed_by([step])


async def exchange(one: Endpoint, other: Endpoint) -> None:
    """Both ways, at once: nothing has to be greeted anew."""
    for sender, receiver in ((one, other), (other, one)):
        sender.send(receiver.me.name, Remark(words="still there"))
        delivery = await next_of(receiver, Delivery)
        assert isinstance(delivery, Delivery)
        assert delivery.sender.name == sender.me.name


def everybody(cluster: Cluster, endpoints: Iterable[Endpoint]) -> bool:
    return all(endpoint.cluster == cluster for endpoint in endpoints)


async def test_one_server_tells_all_and_links_go_on(site: Site) -> None:
    """A client comes: the servers go on to its file, and so do clients; no link is greeted anew before it is used."""
    dealer, p0, p1, clinic = ends = await site.endpoints("dealer", "p0", "p1", "clinic")
    site.keys["new"] = KeyPair.generate()
    begun = Succession.begin(site.cluster)
    newer = followed(site, begun, clients=(*site.cluster.clients, client("new", site.keys["new"])))
    p0.go_on(newer)
    await exchange(p0, clinic)
    await exchange(p0, p1)
    await until(lambda: everybody(newer.cluster, ends))
    await exchange(dealer, clinic)
    assert all(end.succession.cluster == newer.cluster for end in ends)
    new = await site.endpoint("new", cluster=newer.cluster)
    await new.connect(deadline=20)
    await exchange(new, p1)


async def test_who_has_an_older_file_is_told_what_followed_it(site: Site) -> None:
    """One that was away for several changes, server or client, and one that has the newest."""
    succession = Succession.begin(site.cluster)
    for number in range(3):
        keys = site.keys[f"new{number}"] = KeyPair.generate()
        succession = followed(site, succession, clients=(*succession.cluster.clients, client(f"new{number}", keys)))
    p0 = await site.endpoint("p0")
    p0.go_on(succession)
    p1, clinic, new = [await site.endpoint(*who) for who in (("p1",), ("clinic",))] + [
        await site.endpoint("new2", cluster=succession.cluster)
    ]
    for end in (p1, clinic, new):
        await end.connect(["p0"], 20)
    await p0.connect(["p1", "clinic", "new2"], 20)
    await exchange(clinic, p0)
    await exchange(p1, p0)
    await exchange(new, p0)
    # Not the other way round: who has gone on does not go back.
    assert everybody(succession.cluster, (p0, p1, clinic, new))


async def test_who_comes_before_a_server_has_heard_of_it_is_let_in_once_it_has(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_RETRY", 0.1)
    _, p0, p1 = await site.endpoints("dealer", "p0", "p1")
    site.keys["new"] = KeyPair.generate()
    begun = Succession.begin(site.cluster)
    newer = followed(site, begun, clients=(*site.cluster.clients, client("new", site.keys["new"])))

    def not_yet(_: Succession) -> None:
        raise VersionMismatch("p1", "is busy")

    p1.on_newer = not_yet
    p0.go_on(newer)
    new = await site.endpoint("new", cluster=newer.cluster)
    connecting = asyncio.create_task(new.connect(deadline=20))
    await until(lambda: new._wires.outboxes["p1"].trouble is Trouble.DENIED)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(connecting), 0.3)
    p1.go_on(newer)
    await connecting
    await exchange(new, p1)
    # Whom none of them lets in waits for nobody.
    keys = KeyPair.generate()
    with pytest.raises(AuthenticationError, match="does not let us in"):
        other = replace(newer.cluster, clients=(client("late", keys),))
        async with Endpoint(other, other.clients[0], keys, bind=False) as late:
            await late.connect(deadline=60)


async def test_who_is_no_member_any_more_is_cut_off(site: Site) -> None:
    _, p0, p1, clinic = await site.endpoints("dealer", "p0", "p1", "clinic")
    newer = followed(site, Succession.begin(site.cluster), clients=())
    p0.go_on(newer)
    down = await next_of(p0, PeerDown)
    assert isinstance(down, PeerDown)
    assert down.peer.name == "clinic"
    await until(lambda: p1.cluster == newer.cluster and not clinic.connected("p0") and not clinic.connected("p1"))
    with pytest.raises((AuthenticationError, VersionMismatch)):
        await clinic.connect(["p0"], 20)
    late = await site.endpoint("clinic")
    with pytest.raises(AuthenticationError, match="does not let us in"):
        await late.connect(["p1"], 20)


async def test_nor_has_it_a_data_channel_any_more(site: Site) -> None:
    """Neither the one that stands, nor one that it has been offered."""
    p0, clinic = await site.endpoints("p0", "clinic")
    await standing(clinic, "p0")
    link, channels = p0._link("clinic"), p0._wires._channels
    stands = link.receiving
    channels.arrange(link, ChannelWanted(bytes(32)))
    assert channels._offers
    p0.go_on(followed(site, Succession.begin(site.cluster), clients=()))
    assert not channels._offers
    assert stands.closed
    assert (link.sending, link.receiving) == (None, None)


async def test_another_key_of_a_client_and_the_former_one(site: Site) -> None:
    _, p0, _, former = await site.endpoints("dealer", "p0", "p1", "clinic")
    site.keys["clinic2"] = KeyPair.generate()
    newer = followed(site, Succession.begin(site.cluster), clients=(client("clinic", site.keys["clinic2"]),))
    p0.go_on(newer)
    now = Endpoint(newer.cluster, newer.cluster.member("clinic"), site.keys["clinic2"], bind=False)
    async with now:
        await now.connect(deadline=20)
        await exchange(now, p0)
        with pytest.raises((AuthenticationError, VersionMismatch, PeerUnavailable)):
            former.send("p0", Remark(words="still me"))
            await former.connect(["p0"], 20)


async def test_another_key_and_address_of_a_server(site: Site) -> None:
    dealer, p0, p1, clinic = await site.endpoints("dealer", "p0", "p1", "clinic")
    keys, (port,) = KeyPair.generate(), site.stack.enter_context(reserved_ports(1))
    moved = replace(site.cluster.member("p1"), key=keys.public, address=f"127.0.0.1:{port}")
    newer = followed(site, Succession.begin(site.cluster), parties=(site.cluster.parties[0], moved))
    p0.go_on(newer)
    # Told, although its key is none any more: what it has to do.
    await until(lambda: p1.newest.cluster == newer.cluster)
    assert p1.cluster == site.cluster
    await p1.close()
    await until(lambda: everybody(newer.cluster, (dealer, clinic)))
    now = Endpoint(newer.cluster, newer.cluster.member("p1"), keys, bind=True)
    async with now:
        for end in (dealer, p0, clinic):
            await end.connect(["p1"], 20)
        await exchange(now, p0)
        await exchange(clinic, now)
        await exchange(clinic, p0)
        # With the former address: it waits where the newer file says.
        late = await site.endpoint("clinic")
        await late.connect(deadline=20)


@pytest.mark.parametrize("wrong", ["unsigned", "another's", "nothing"])
async def test_a_server_that_tells_of_a_file_that_not_all_have_signed(site: Site, wrong: str) -> None:
    p0, clinic = await site.endpoints("p0", "clinic")
    new = replace(site.cluster, number=2, former=site.cluster.fingerprint, clients=())
    step = Step(new.dumps(), {"p0": bytes(64)} if wrong == "another's" else {}).signed("dealer", site.keys["dealer"])
    rogue = site.rogue("p1", "p0")
    rogue.greet()
    rogue.say(Succeeded(), 1, *([] if wrong == "nothing" else [step.encode()]))
    fault = await next_of(p0, LinkFault)
    assert isinstance(fault, LinkFault)
    assert fault.sender.name == "p1"
    assert isinstance(fault.error, ProtocolViolation)
    assert p0.cluster == site.cluster
    await exchange(clinic, p0)


async def test_a_client_cannot_tell_of_files(site: Site) -> None:
    (p0,) = await site.endpoints("p0")
    newer = followed(site, Succession.begin(site.cluster), clients=())
    rogue = site.rogue("clinic", "p0")
    rogue.greet()
    rogue.say(Succeeded(), 1, newer.steps[1].encode())
    fault = await next_of(p0, LinkFault)
    assert isinstance(fault, LinkFault)
    assert isinstance(fault.error, AuthenticationError)
    assert p0.cluster == site.cluster


async def test_a_newer_number_without_what_led_to_it(site: Site) -> None:
    """Another cluster's file, or one whose succession nobody has: as any other file."""
    p0 = await site.endpoint("p0")
    other = replace(site.cluster, number=5, former="e" * 64)
    late = await site.endpoint("clinic", cluster=other)
    with pytest.raises(VersionMismatch, match=r"number 1, we with .* number 5"):
        await late.connect(["p0"], 0.3)
    rogue = site.rogue("p1", "p0")
    rogue.say(Hello(package_version(), "e" * 64, 9), 0)
    await asyncio.sleep(0.1)
    assert not p0.connected("p1")


@pytest.mark.parametrize("missed", [1, 2])
async def test_a_server_that_goes_on_to_the_file_of_a_client_says_so(site: Site, missed: int) -> None:
    """The client has been waiting for it: with a file of whose former ones it has one fingerprint at most."""
    p0 = await site.endpoint("p0")
    succession = Succession.begin(site.cluster)
    for signers in (("p0",), ("p1",))[:missed]:
        succession = followed(site, succession, settings=Settings(peer_timeout=1.0, signers=signers))
    clinic = await site.endpoint("clinic", cluster=succession.cluster)
    connecting = asyncio.create_task(clinic.connect(["p0"], 20))
    await until(lambda: clinic._link("p0").behind is not None and p0._link("clinic").behind is not None)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(connecting), 0.2)
    p0.go_on(succession)
    await connecting
    await exchange(clinic, p0)


async def test_other_servers_or_settings_are_begun_with_anew(site: Site) -> None:
    p0, clinic = await site.endpoints("p0", "clinic")
    newer = followed(site, Succession.begin(site.cluster), settings=Settings(peer_timeout=2.0))
    p0.go_on(newer)
    fault = await next_of(clinic, LinkFault)
    assert isinstance(fault, LinkFault)
    assert isinstance(fault.error, VersionMismatch)
    assert "begin again with the newest" in str(fault.error)
    assert clinic.cluster == site.cluster
    assert clinic.newest.cluster == newer.cluster
    with pytest.raises(VersionMismatch):
        clinic.send("p0", Remark(words="as before"))


async def test_whoever_operates_a_server_reaches_that_one_alone(site: Site) -> None:
    """Under its own key, beside it; what an operator may not say it does not hear."""
    dealer, p0 = await site.endpoints("dealer", "p0")
    async with Endpoint(site.cluster, operator(p0.me), site.keys["p0"], bind=False) as console:
        await console.connect(deadline=20)
        assert await console.ping("p0") > 0
        console.send("p0", Remark(words="as a party would"))
        fault = await next_of(p0, LinkFault)
        assert isinstance(fault, LinkFault)
        assert isinstance(fault.error, AuthenticationError)
        assert "operator" in str(fault.error)
        newer = followed(site, Succession.begin(site.cluster), settings=Settings(peer_timeout=1.0, signers=("p0",)))
        p0.go_on(newer)
        await until(lambda: everybody(newer.cluster, (console, dealer)))
    assert dealer.connected("p0")
