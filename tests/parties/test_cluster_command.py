"""``tessera cluster``: each operator at its own server, over real sockets, and without servers at all."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from mpc.errors import ConfigurationError
from parties import Cluster, KeyPair, LocalCluster
from parties.commands.command_line import main
from parties.members.succession import Succession, decode
from parties.operate.cluster.rekey import rekey
from parties.stored.vault import Vault

SIGNERS = ("dealer", "party0", "party1")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, dict[str, KeyPair]]:
    """A cluster file and everybody's key files, without servers."""
    keys = {name: KeyPair.generate() for name in (*SIGNERS, "clinic", "company", "late")}
    cluster = Cluster.build(
        "t",
        dealer=("127.0.0.1:1", keys["dealer"].public),
        parties=[(f"party{i}", f"127.0.0.1:{i + 2}", keys[f"party{i}"].public) for i in range(2)],
        clients=[(name, keys[name].public) for name in ("clinic", "company")],
    )
    for name, pair in keys.items():
        pair.save(tmp_path / f"{name}.key")
    (tmp_path / "cluster.toml").write_text(cluster.dumps())
    return tmp_path, keys


def said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    assert main(["cluster", *map(str, arguments), "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_without_servers_a_file_is_carried_from_hand_to_hand(
    files: tuple[Path, dict[str, KeyPair]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, keys = files
    old, new = folder / "cluster.toml", folder / "cluster-2.toml"
    change = ["--add-client", f"late={keys['late'].public}", "--remove", "company", "--address", "party1=10.0.0.9:7001"]
    common = ["--cluster", old, "--offline"]
    found = said(capsys, "propose", *change, *common, "--key", folder / "dealer.key", "--out", new)
    assert found["changes"] == [
        "client company goes",
        "party party1 is at 10.0.0.9:7001 instead of 127.0.0.1:3",
        "client late comes",
    ]
    assert (found["accepted"], found["missing"], found["in_force"]) == (["dealer"], ["party0", "party1"], False)
    assert "every model" not in " ".join(found["consequences"])
    mark = found["fingerprint"][:12]
    for name, left in (("party1", ["party0"]), ("party0", [])):
        key = ["--key", folder / f"{name}.key"]
        assert said(capsys, "accept", new, *common, *key, "--fingerprint", mark)["missing"] == left
    (step,) = decode((folder / "cluster-2.toml.signed").read_bytes())
    assert Succession.begin(Cluster.load(old)).followed_by([step]).cluster.number == 2
    for wrong, code in (
        (["accept", new, *common, "--key", folder / "clinic.key"], 3),
        (["accept", new, *common, "--key", folder / "dealer.key", "--fingerprint", "0123456789"], 2),
        (["accept", *common, "--key", folder / "dealer.key"], 2),
        (["propose", *common, "--key", folder / "dealer.key", "--out", folder / "x"], 2),
        (["propose", "--remove", "party0", *common, "--key", folder / "dealer.key", "--out", folder / "x"], 2),
        (["propose", "--remove", "nobody", *common, "--key", folder / "dealer.key", "--out", folder / "x"], 2),
        (["propose", "--address", "clinic=h:1", *common, "--key", folder / "dealer.key", "--out", folder / "x"], 2),
        (["propose", "--new-key", "clinic", *common, "--key", folder / "dealer.key", "--out", folder / "x"], 2),
        (["propose", "--remove", "clinic", *common, "--key", folder / "dealer.key", "--out", old], 3),
        (["propose", "--remove", "clinic", *common, "--key", folder / "dealer.key"], 2),
    ):
        assert "error" in said(capsys, *wrong, code=code)
    assert not (folder / "x").exists()


def test_a_whole_file_is_completed_with_number_and_fingerprint(
    files: tuple[Path, dict[str, KeyPair]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = files
    text = (folder / "cluster.toml").read_text().replace("peer_timeout = 5.0", "peer_timeout = 6.0")
    (folder / "mine.toml").write_text(text)
    common = [
        "--cluster",
        folder / "cluster.toml",
        "--key",
        folder / "dealer.key",
        "--offline",
        "--out",
        folder / "2.toml",
    ]
    found = said(capsys, "propose", folder / "mine.toml", *common)
    assert found["changes"] == ["peer_timeout is 6.0 instead of 5.0"]
    assert found["loses"]["runs"]
    written = Cluster.load(folder / "2.toml")
    assert (written.number, written.former) == (2, Cluster.load(folder / "cluster.toml").fingerprint)


def test_a_data_folder_under_another_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, other = KeyPair.generate(), KeyPair.generate(), KeyPair.generate()
    for name, pair in (("old", old), ("new", new)):
        pair.save(tmp_path / f"{name}.key")
    folder = tmp_path / "data"
    sealed = {}
    for purpose in ("ledger", "models"):
        with Vault(folder, f"{purpose}.sqlite", old, purpose=purpose, member="party0", schema="") as vault:
            sealed[purpose] = [bytes(chunk) for chunk in vault.seal(("x",), [b"secret of " + purpose.encode()])]
    # As a crash leaves it in the middle: one done, one not.
    assert Vault.rekey(folder / "ledger.sqlite", old, new)
    with pytest.raises(ConfigurationError, match="neither of these keys"):
        rekey(folder, other, old)
    found = said(
        capsys, "rekey", "--data", folder, "--old-key", tmp_path / "old.key", "--new-key", tmp_path / "new.key"
    )
    assert found["files"] == ["ledger.sqlite", "models.sqlite"]
    assert rekey(folder, old, new) == found["files"]
    for purpose in ("ledger", "models"):
        path = folder / f"{purpose}.sqlite"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(ConfigurationError, match="another public key"):
            Vault(folder, path.name, old, purpose=purpose, member="party0", schema="")
        with pytest.raises(ConfigurationError, match="made with another key"):
            Vault(folder, path.name, KeyPair(new.public, old.secret), purpose=purpose, member="party0", schema="")
        with Vault(folder, path.name, new, purpose=purpose, member="party0", schema="") as vault:
            (chunk,) = sealed[purpose]
            (opened,) = vault.unseal(("x",), 1, len(chunk), [chunk])
            assert bytes(opened) == b"secret of " + purpose.encode()
            with pytest.raises(ConfigurationError, match="open in another process"):
                Vault.rekey(path, new, old)
    with pytest.raises(ConfigurationError, match="no server's data folder"):
        rekey(tmp_path / "nothing", old, new)


@pytest.mark.slow
def test_proposed_and_accepted_at_the_servers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late = KeyPair.generate()
    with LocalCluster(2, clients=("clinic", "company")) as cluster:
        for name in ("clinic", "company"):
            cluster.client_key(name).save(cluster.folder / f"{name}.pair.key")
        common = ["--cluster", cluster.path, "--timeout", 5]

        def key(name: str) -> list[object]:
            pair = cluster.folder / f"{name}.pair.key"
            return ["--key", pair if pair.exists() else cluster.key_path(name)]

        shown = said(capsys, "show", *common, *key("clinic"))
        assert (shown["number"], shown["signers"], shown["proposals"]) == (1, [*SIGNERS], [])
        assert [member["name"] for member in shown["members"]] == [*SIGNERS, "clinic", "company"]
        found = said(capsys, "propose", "--add-client", f"late={late.public}", *common, *key("party1"))
        assert found["consequences"] == ["nothing has to be uploaded or dealt again"]
        assert said(capsys, "accept", *common, *key("clinic"), code=2)["error"]
        assert said(capsys, "accept", *common, *key("dealer"), code=2)["error"], "nobody is asked, and nothing is said"
        mark = ["--fingerprint", found["fingerprint"][:8]]
        assert said(capsys, "accept", *mark, *common, *key("dealer"))["missing"] == ["party0"]
        (waiting,) = said(capsys, "show", *common, *key("clinic"))["proposals"]
        assert (waiting["accepted"], waiting["missing"]) == (["dealer", "party1"], ["party0"])
        assert said(capsys, "accept", *mark, *common, *key("party0"))["in_force"]
        out = tmp_path / "newest.toml"
        shown = said(capsys, "show", *common, *key("clinic"), "--out", out)
        assert (shown["number"], shown["fingerprint"]) == (2, found["fingerprint"])
        assert Cluster.load(out).fingerprint == found["fingerprint"]
        assert len(decode((tmp_path / "newest.toml.signed").read_bytes())) == 1
        late.save(tmp_path / "late.key")
        assert said(capsys, "show", "--cluster", out, "--key", tmp_path / "late.key")["number"] == 2
        assert main(["cluster", "show", *map(str, [*common, *key("party0")])]) == 0
        assert "nothing is proposed" in capsys.readouterr().out
