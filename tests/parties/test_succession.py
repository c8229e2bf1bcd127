"""Which cluster file may follow another, and who has to have signed it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mpc.errors import ConfigurationError
from parties import Cluster, KeyPair, Settings
from parties.members.cluster import Member, Role
from parties.members.succession import Step, Succession, check_signatures, decode, encode

NAMES = ("dealer", "party0", "party1", "clinic", "company")
KEYS = {name: KeyPair.generate() for name in (*NAMES, "new", "newer")}
FIRST = Cluster.build(
    "test",
    dealer=("10.0.0.1:7000", KEYS["dealer"].public),
    parties=[(f"party{i}", f"10.0.0.{i + 2}:7000", KEYS[f"party{i}"].public) for i in range(2)],
    clients=[(name, KEYS[name].public) for name in NAMES[3:]],
)
Change = Callable[[Cluster], Cluster]


def client(name: str, keys: KeyPair) -> Member:
    return Member(name, Role.CLIENT, 0, None, keys.public)


def adding(name: str, keys: KeyPair) -> Change:
    return lambda former: replace(former, clients=(*former.clients, client(name, keys)))


def removing(name: str) -> Change:
    return lambda former: replace(former, clients=tuple(c for c in former.clients if c.name != name))


def keyed(name: str, keys: KeyPair) -> Change:
    def change(former: Cluster) -> Cluster:
        members = {m.name: replace(m, key=keys.public) if m.name == name else m for m in former.members}
        return replace(
            former,
            dealer=members["dealer"],
            parties=tuple(members[p.name] for p in former.parties),
            clients=tuple(members[c.name] for c in former.clients),
        )

    return change


def after(former: Cluster, *changes: Change) -> Cluster:
    for change in changes:
        former = replace(change(former), number=former.number, former=former.former)
    return Succession.begin(former).completed(former)


def following(succession: Succession, *changes: Change, signers: dict[str, KeyPair] | None = None) -> Step:
    """The next step, signed by all that have to, by the keys that they have."""
    current = succession.cluster
    new = current
    for change in changes:
        new = change(new)
    step = Step(succession.completed(new).dumps())
    holders = {keys.public: keys for keys in KEYS.values()}
    for signer in current.signers:
        step = step.signed(signer.name, (signers or {}).get(signer.name) or holders[signer.key])
    return step


def gone_on(*steps: tuple[Change, ...]) -> Succession:
    succession = Succession.begin(FIRST)
    for changes in steps:
        succession = succession.followed_by([following(succession, *changes)])
    return succession


def test_files_follow_one_another_for_whoever_has_any_of_them() -> None:
    whole = gone_on((adding("new", KEYS["new"]),), (removing("company"),), (keyed("clinic", KEYS["newer"]),))
    assert [m.name for m in whole.cluster.clients] == ["clinic", "new"]
    assert whole.cluster.number == 4
    assert whole.cluster.member("new").index == 1
    clinic = whole.cluster.member("clinic")
    assert (clinic.key, clinic.identity) == (KEYS["newer"].public, KEYS["clinic"].public)
    steps = decode(encode(whole.steps))
    for at in range(4):
        begun = Succession.begin(steps[at].cluster())
        assert [Step.decode(s) for s in whole.since(begun.cluster.fingerprint)] == list(whole.steps[at + 1 :])
        assert begun.followed_by(whole.steps).cluster == whole.cluster
        assert whole.followed_by(begun.steps) == whole
    assert whole.since("f" * 64) == []
    assert not whole.knows("f" * 64)
    last = Succession.begin(whole.cluster)
    assert [last.knows(step.cluster().fingerprint) for step in steps] == [False, False, True, True]
    assert last.since(whole.cluster.former) == []
    assert not Succession.begin(FIRST).knows("")


def test_what_is_stored_outlasts_keys_clients_and_addresses_and_not_other_servers() -> None:
    def moved(former: Cluster) -> Cluster:
        return replace(former, dealer=replace(former.dealer, address="10.9.9.9:1"))

    same = gone_on(
        (keyed("party1", KEYS["new"]), moved), (removing("clinic"),), (keyed("dealer", KEYS["newer"]),)
    ).cluster
    assert (same.circle, same.bond) == (FIRST.circle, FIRST.bond)
    assert same.terms != FIRST.terms

    def more(former: Cluster) -> Cluster:
        return replace(former, parties=(*former.parties, Member("party2", Role.PARTY, 2, "h:1", KEYS["new"].public)))

    def turned(former: Cluster) -> Cluster:
        return replace(former, parties=former.parties[::-1])

    for change in (more, turned):
        other = gone_on((change,)).cluster
        assert other.circle != FIRST.circle
        assert other.bond != FIRST.bond
    strict = gone_on((lambda former: replace(former, settings=Settings(security="malicious")),)).cluster  # type: ignore[arg-type]
    assert strict.circle == FIRST.circle
    assert strict.bond != FIRST.bond


@pytest.mark.parametrize("signer", ["dealer", "party0", "party1"])
def test_all_have_to_sign_by_the_keys_that_they_had(signer: str) -> None:
    begun = Succession.begin(FIRST)
    good = following(begun, keyed(signer, KEYS["new"]))
    assert begun.followed_by([good]).cluster.member(signer).key == KEYS["new"].public
    without = Step(good.text, {n: s for n, s in good.signatures.items() if n != signer})
    assert check_signatures(FIRST, without.cluster(), without.signatures) == {signer}
    with pytest.raises(ConfigurationError, match=f"not signed by {signer}"):
        begun.followed_by([without])
    with pytest.raises(ConfigurationError, match=f"signature of {signer} that is not right"):
        begun.followed_by([following(begun, keyed(signer, KEYS["new"]), signers={signer: KEYS["new"]})])
    other = following(begun, adding("new", KEYS["newer"]))
    with pytest.raises(ConfigurationError, match="not right"):
        begun.followed_by([Step(good.text, {**good.signatures, signer: other.signatures[signer]})])
    with pytest.raises(ConfigurationError, match="signed by 'clinic', which cluster file 1 does not ask to"):
        begun.followed_by([good.signed("clinic", KEYS["clinic"])])


def test_the_settings_name_who_signs_the_file_after() -> None:
    named = gone_on((lambda former: replace(former, settings=Settings(signers=("clinic", "dealer"))),))
    assert [m.name for m in named.cluster.signers] == ["dealer", "clinic"]
    step = following(named, removing("company"))
    assert step.signatures.keys() == {"dealer", "clinic"}
    assert named.followed_by([step]).cluster.number == 3
    with pytest.raises(ConfigurationError, match=r"settings.signers: no member is called 'nobody'"):
        replace(FIRST, settings=Settings(signers=("nobody",)))
    with pytest.raises(ConfigurationError, match="named twice"):
        replace(FIRST, settings=Settings(signers=("dealer", "dealer")))
    with pytest.raises(ConfigurationError, match=r"settings.signers: no member is called 'clinic'"):
        following(named, removing("clinic"))


def pretending(name: str, origin: str) -> Change:
    def change(former: Cluster) -> Cluster:
        return replace(
            former, clients=tuple(replace(c, origin=origin) if c.name == name else c for c in former.clients)
        )

    return change


TWICE = keyed("clinic", KEYS["new"]), keyed("clinic", KEYS["newer"])


@pytest.mark.parametrize(
    ("before", "change", "complaint"),
    [
        ((), adding("new", KEYS["clinic"]), "the same as"),
        ((removing("clinic"),), adding("new", KEYS["clinic"]), "the key of new is, or was, clinic's"),
        ((keyed("clinic", KEYS["new"]),), adding("other", KEYS["clinic"]), "the same as"),
        ((keyed("clinic", KEYS["new"]),), keyed("clinic", KEYS["clinic"]), "the same as"),
        ((keyed("party0", KEYS["new"]),), keyed("party1", KEYS["party0"]), "the same as"),
        (TWICE, adding("other", KEYS["new"]), "is, or was, clinic's"),
        (TWICE, keyed("clinic", KEYS["new"]), "is, or was, clinic's"),
        ((removing("clinic"),), adding("clinic", KEYS["new"]), "clinic was a member before"),
        ((removing("clinic"), keyed("company", KEYS["new"])), adding("clinic", KEYS["company"]), "the same as"),
    ],
)
def test_a_key_is_of_who_had_it_first_and_a_name_of_who_it_was(
    before: tuple[Change, ...], change: Change, complaint: str
) -> None:
    succession = gone_on(*((one,) for one in before))
    with pytest.raises(ConfigurationError, match=complaint):
        succession.followed_by([following(succession, change)])


def test_nobody_pretends_to_have_come_with_another_key() -> None:
    succession = gone_on((keyed("clinic", KEYS["new"]), removing("company")))
    stranger = KeyPair.generate().public
    for name, origin in (("clinic", stranger), ("clinic", KEYS["company"].public)):
        with pytest.raises(ConfigurationError, match="clinic came with another key than its `origin` says"):
            succession.followed_by([following(succession, pretending(name, origin))])
    # Whoever was given only the newest file knows who everybody is, from that file alone.
    alone = Succession.begin(Cluster.loads(succession.steps[-1].text)).cluster
    assert alone.member("clinic").identity == KEYS["clinic"].public
    assert (alone.circle, alone.bond, alone.terms) == (
        succession.cluster.circle,
        succession.cluster.bond,
        succession.cluster.terms,
    )


def test_who_went_comes_back_as_who_it_was() -> None:
    back = gone_on((keyed("clinic", KEYS["new"]),), (removing("clinic"),), (adding("clinic", KEYS["new"]),)).cluster
    assert back.member("clinic").identity == KEYS["clinic"].public


def test_nobody_changes_from_client_to_server() -> None:
    def change(former: Cluster) -> Cluster:
        party = Member("clinic", Role.PARTY, 1, "10.0.0.3:7000", KEYS["clinic"].public)
        return replace(removing("clinic")(former), parties=(former.parties[0], party))

    succession = Succession.begin(FIRST)
    with pytest.raises(ConfigurationError, match="clinic is a client, and cannot become a party"):
        succession.followed_by([following(succession, change)])


@pytest.mark.parametrize("changes", [{"number": 3}, {"former": "e" * 64}, {"name": "other"}])
def test_a_file_says_which_it_follows(changes: dict[str, object]) -> None:
    succession = Succession.begin(FIRST)
    with pytest.raises(ConfigurationError, match=r"does not follow the one in force, which is number 1|stays so"):
        succession.check(replace(after(FIRST), **changes))  # type: ignore[arg-type]


def test_what_is_no_signed_file() -> None:
    for line in (b"", b"{}", b"[]", b'{"text": 1}', b'{"text": "", "more": 1}', b"\xff", b"[" * 100_000):
        with pytest.raises(ConfigurationError):
            Step.decode(line)
    with pytest.raises(ConfigurationError, match="signed cluster file"):
        Succession.begin(FIRST).followed_by([Step("nonsense")])


def test_a_file_is_completed_by_what_it_follows() -> None:
    second = Succession.begin(FIRST).followed_by([following(Succession.begin(FIRST))])
    again = second.completed(FIRST)
    assert (again.number, again.former) == (3, second.cluster.fingerprint)
    assert second.completed(second.cluster) == again
    assert Succession.begin(FIRST).completed(after(FIRST)) == after(FIRST)
    for number, former in ((1, "f" * 64), (2, "")):
        with pytest.raises(ConfigurationError, match="former"):
            replace(FIRST, number=number, former=former)
