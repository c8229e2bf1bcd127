"""What one owner may have at a server: names, what is said of secrets, rules, bytes; nobody else has less for it."""

import numpy as np
import pytest

from mpc.errors import ProgramError, ServerBusy
from nn import Linear, Model, Sequential
from parties.messages.uploads import MAX_SECRETS, TensorInfo, Upload, UploadBegin
from parties.stored import partials, rules
from parties.stored.quotas import MAX_DESCRIPTION, MOST_DESCRIBED, Quotas, Said, said

VERSION, ATTEMPT, MASKS = "1" * 32, "2" * 32, "3" * 64


def model():
    architecture = Sequential({"a": Linear(2, 2)}).architecture((2,))
    return Model(architecture, {name: np.ones(shape) for name, shape in architecture.parameters.items()})


@pytest.mark.parametrize("clients", [0, 1, 2, 3, 50, 1000, 5000])
def test_whatever_others_have_an_owner_has_its_part(clients):
    quotas = Quotas("party0", clients, 128 << 20)
    assert quotas.names >= 1
    assert quotas.names * clients <= MAX_SECRETS or quotas.names == 1
    assert MAX_DESCRIPTION <= quotas.described <= MOST_DESCRIBED
    assert quotas.described * clients <= 16 << 20 or quotas.described == MAX_DESCRIPTION


def test_an_owner_has_so_many_names_and_may_replace_what_is_under_them():
    quotas = Quotas("party0", MAX_SECRETS // 3, 1 << 30)
    have = [Said(name, 10) for name in "abc"]
    quotas.check("owner", Said("a", 10), have)
    quotas.check("owner", Said("c", 10), have[:2])
    with pytest.raises(ServerBusy, match=r"party0: owner has 3 names, and an owner may have no more here: remove one"):
        quotas.check("owner", Said("d", 10), have)


def test_what_is_said_of_secrets_has_bounds_for_one_and_for_all():
    quotas = Quotas("party0", 4, 128 << 20)
    assert quotas.described == 4 << 20
    quotas.check("owner", Said("a", MAX_DESCRIPTION), [Said(name, 1 << 20) for name in "bcd"])
    with pytest.raises(ServerBusy, match="of the secrets of owner would take 4097 KiB, and an owner may have 4096"):
        quotas.check("owner", Said("a", MAX_DESCRIPTION), [Said(name, 1 << 20) for name in "bcd"] + [Said("e", 1024)])
    with pytest.raises(ProgramError, match="what is said of 'a' takes 1024 KiB, and 1024 are taken"):
        quotas.check("owner", Said("a", MAX_DESCRIPTION + 1), [])
    assert said("a", b"12345", 3).size > said("a", b"12345", 2).size > 5


async def test_long_descriptions_are_kept_by_nobody(site):
    """Each server is asked by itself: a cheating client leaves the dealer out."""
    tensors = (TensorInfo("w", (2,)),)
    endpoint = site.endpoint("company")
    async with endpoint:
        await endpoint.connect(deadline=20)
        for i in range(6):
            version, said_of_it = f"{i:032x}", [bytes(MAX_DESCRIPTION + 1)]
            endpoint.send("dealer", Upload(version=version, name="m", tensors=tensors, content=MASKS), said_of_it)
            begin = UploadBegin(version=version, name="m", tensors=tensors, masks=MASKS, attempt=ATTEMPT)
            endpoint.send("party0", begin, said_of_it)
            for _ in range(2):
                failed = (await endpoint.receive()).message
                assert failed.fault.error == "ProgramError"
                assert "describe it in fewer words" in failed.fault.reason
    assert not site.servers["party0"]._secrets.uploads.versions
    assert not site.servers["dealer"]._coordinator._uploads


async def test_many_descriptions_are_of_their_owner_alone(site):
    for server in site.servers.values():
        server.governor.quotas.described = 10_000
    async with site.client("company") as company, site.client() as clinic:
        with pytest.raises(ServerBusy, match="what is said of the secrets of company would take"):
            for i in range(30):
                await company.upload(model(), f"m{i}")
        assert len(await company.models()) > 3
        assert (await clinic.upload(model(), "theirs")).name == "theirs"
        await company.upload(model(), "m0")


async def test_rules_are_counted_for_their_owner(site, monkeypatch):
    monkeypatch.setattr(rules, "MAX_RULES", 3)
    async with site.client("company") as company, site.client() as clinic:
        for name in "ab":
            await company.upload(model(), name)
        await clinic.upload(model(), "theirs")
        await company.allow("a", "clinic", ["0" * 64, "1" * 64])
        await company.allow("b", "clinic")
        with pytest.raises(ProgramError, match="rules of company allow 3 programs already"):
            await company.allow("b", "*")
        await clinic.allow("theirs", "company")
        await company.allow("a", "clinic", ["2" * 64])
        await company.allow("b", "*")


async def test_an_owner_leaves_others_room_on_the_disk(site, monkeypatch):
    held_by = {}

    def check(folder, server, more, owner, held):
        held_by[server, owner] = held
        if held >= 2 * more > 50:
            raise ServerBusy(server, "would have more than it leaves")

    monkeypatch.setattr(partials, "check_part", check)
    async with site.client("company") as company, site.client() as clinic:
        for name in "ab":
            await company.upload(model(), name)
        with pytest.raises(ServerBusy, match="more than it leaves"):
            await company.upload(model(), "c")
        await clinic.upload(model(), "theirs")
        assert held_by["party0", "clinic"] == 0
        await company.remove("a")
        await company.upload(model(), "c")
        await company.remove("b")
        x = company.share([0.5], low=-1, high=1)
        await company.keep({"y": x * x}, "kept")
        assert held_by["party1", "company"] > 0
