"""The cluster file: what it says, and what is wrong with it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from mpc.errors import ConfigurationError
from parties.members.cluster import Cluster, Member, Role
from parties.members.cluster_file import Settings
from parties.members.keys import KeyPair

KEYS = [KeyPair.generate().public for _ in range(6)]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster.build(
        "skin",
        dealer=("10.0.0.1:7000", KEYS[0]),
        parties=[("hospital", "10.0.0.2:7001", KEYS[1]), ("university", "[fd00::3]:7001", KEYS[2])],
        clients=[("clinic-a", KEYS[3])],
    )


def test_members_and_their_order(cluster: Cluster) -> None:
    assert [member.name for member in cluster.members] == ["dealer", "hospital", "university", "clinic-a"]
    assert [member.name for member in cluster.servers] == ["dealer", "hospital", "university"]
    assert cluster.parties[1] == Member("university", Role.PARTY, 1, "[fd00::3]:7001", KEYS[2])
    assert cluster.by_key(KEYS[3]) is cluster.clients[0]
    assert cluster.by_key(KEYS[5]) is None
    assert cluster.member("dealer").is_server
    assert not cluster.member("clinic-a").is_server
    with pytest.raises(ConfigurationError, match="no member is called 'nobody': it lists dealer, hospital,"):
        cluster.member("nobody")


def test_writing_and_reading(cluster: Cluster, tmp_path: Path) -> None:
    listening = replace(cluster, dealer=replace(cluster.dealer, listen="0.0.0.0:7000"))
    tuned = replace(listening, settings=Settings(peer_timeout=2.5, threads=3))
    ported = replace(tuned, parties=tuple(replace(p, data_port=7101 * p.index) for p in cluster.parties))
    for one in (cluster, listening, tuned, ported):
        path = tmp_path / "cluster.toml"
        path.write_text(one.dumps())
        assert Cluster.load(path) == one
        assert Cluster.load(path).fingerprint == one.fingerprint


def test_the_fingerprint_is_of_the_content(cluster: Cluster) -> None:
    text = cluster.dumps()
    assert len(cluster.fingerprint) == 64
    assert Cluster.loads("# a comment\n" + text.replace(" = ", "=")).fingerprint == cluster.fingerprint
    assert Cluster.loads(text.split("[settings]")[0]).fingerprint == cluster.fingerprint, "defaults count"
    others = [
        replace(cluster, name="other"),
        replace(cluster, clients=()),
        replace(cluster, parties=tuple(replace(p, index=1 - p.index) for p in reversed(cluster.parties))),
        replace(cluster, settings=Settings(round_timeout=61)),
        replace(cluster, dealer=replace(cluster.dealer, data_port=0)),
        replace(cluster, dealer=replace(cluster.dealer, data_port=7100)),
    ]
    assert len({c.fingerprint for c in [cluster, *others]}) == 7


TEXT = Cluster.build(
    "skin",
    dealer=("10.0.0.1:7000", KEYS[0]),
    parties=[("hospital", "10.0.0.2:7001", KEYS[1]), ("university", "10.0.0.3:7001", KEYS[2])],
    clients=[("clinic-a", KEYS[3])],
).dumps()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("version = 1", "version = 2", "version: it is 2, this release reads 1"),
        ("version = 1", "", "missing required field `version`"),
        ("version = 1", "version = 1\nsecret = 1", "unknown field `secret`"),
        ("version = 1", "version = [", "not valid TOML"),
        ('name = "skin"', 'name = "ski n"', "name: 'ski n' is not a name"),
        ('name = "hospital"', 'name = ""', r"party\[0\].name: '' is not a name"),
        ('name = "hospital"', "name = 7", r"Expected `str`, got `int` - at `party\[0\].name`"),
        ('name = "university"', 'name = "hospital"', r"party\[1\].name: the same as party\[0\].name"),
        ('name = "clinic-a"', 'name = "dealer"', r"client\[0\].name: the same as dealer.name"),
        (KEYS[2], KEYS[1], r"party\[1\].key: the same as party\[0\].key"),
        (KEYS[3], KEYS[0], r"client\[0\].key: the same as dealer.key"),
        (KEYS[2][:40], KEYS[1][:40], r"party\[1\].key: the same as party\[0\].key"),
        (KEYS[3][40:], KEYS[0][40:], r"client\[0\].key: the same as dealer.key"),
        (KEYS[1], "abc", r"party\[0\].key: not a public key"),
        (KEYS[3], "~" * 80, r"client\[0\].key: not a public key"),
        ("10.0.0.3:7001", "10.0.0.2:7001", r"party\[1\].address: the same as party\[0\].address"),
        ("10.0.0.1:7000", "10.0.0.1", "dealer.address: '10.0.0.1' is not host:port"),
        ("10.0.0.1:7000", "tcp://10.0.0.1:7000", "is not host:port"),
        ("10.0.0.1:7000", "10.0.0.1:0", "port 0 is out of range"),
        ("10.0.0.1:7000", "10.0.0.1:65536", "port 65536 is out of range"),
        ("10.0.0.1:7000", '10.0.0.1:7000"\nlisten = "all', "dealer.listen: 'all' is not host:port"),
        (
            "10.0.0.1:7000",
            '10.0.0.1:7000"\ndata_port = 7000\nlisten = "0.0.0.0:1',
            "dealer.data_port: 7000 is the port",
        ),
        ("10.0.0.1:7000", '10.0.0.1:7000"\ndata_port = 1\nlisten = "0.0.0.0:1', "dealer.data_port: 1 is the port of"),
        ("10.0.0.1:7000", '10.0.0.1:7000"\ndata_port = 65536\nlisten = "0.0.0.0:1', "data_port"),
        ("[[client]]", "[[clients]]", "unknown field `clients`"),
        ("[[party]]", "[[others]]", "unknown field `others`|missing required field `party`"),
        ("peer_timeout = 5.0", "peer_timeout = 0.0", "peer_timeout"),
        ("peer_timeout = 5.0", 'peer_timeout = "5"', "peer_timeout"),
        ("threads = 0", "threads = -1", "threads"),
        ("threads = 0", "treads = 1", "unknown field `treads`"),
        ("max_message_mb = 2048", "max_message_mb = 0", "max_message_mb"),
    ],
    ids=itertools.count(),  # not the keys, which differ from run to run
)
def test_what_is_wrong_is_named(old: str, new: str, complaint: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        Cluster.loads(TEXT.replace(old, new), source="cluster file x.toml")
    assert str(caught.value).startswith("cluster file x.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_parties(count: int) -> None:
    with pytest.raises(ConfigurationError, match=f"party: {count} given: list at least 2"):
        Cluster.build("x", dealer=("h:1", KEYS[0]), parties=[("a", "h:2", KEYS[1])][:count])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist: give its path, to a command with --cluster"):
        Cluster.load(tmp_path / "cluster.toml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Cluster.load(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Cluster.load(tmp_path / "binary")
