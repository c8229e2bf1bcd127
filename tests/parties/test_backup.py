"""Back up and restore: models come back, preprocessing never; and whatever should not be put back is refused."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from mpc.errors import ConfigurationError
from nn import Linear, Model, Sequential
from parties import DataSet, KeyPair
from parties.commands.command_line import main
from parties.operate.backup.restoring import NEVER, restore
from parties.operate.backup.taking import MANIFEST, take

SERVERS = ("dealer", "party0", "party1")


def model(weight: float) -> Model:
    net = Sequential({"out": Linear(3, 1, bias=False)}).architecture((3,))
    return Model(net, {"out.weight": [[weight] * 3]})


async def answer(client: Any) -> float:
    x = client.share([[1.0, 1.0, 1.0]], low=-1, high=1)
    return float((await client.reveal((await client.model("m"))(x)))[0, 0])


async def put_back(site: Any, name: str, backup: Path) -> None:
    """As after the loss of that host's disk."""
    await site.stop(name)
    shutil.rmtree(site.data(name))
    restore(backup, site.data(name), site.keys[name])
    await site.start(name)


@pytest.mark.parametrize("name", SERVERS)
async def test_one_host_that_lost_its_disk(site: Any, tmp_path: Path, name: str) -> None:
    backup = tmp_path / "one.backup"
    async with site.client("company") as company, site.client("clinic") as clinic:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
        await company.upload(DataSet({"x": [0.25, -0.5]}, low=-1, high=1), "d")
        x = company.share([[1.0, 1.0, 1.0]], low=-1, high=1)
        await company.stock((await company.model("m"))(x), 3)
        done = take(site.data(name), backup)  # while it runs
        assert (done.member, done.versions) == (name, 2)
        assert backup.stat().st_mode & 0o777 == 0o600
        assert await answer(company) == pytest.approx(1.5, abs=1e-2)
        assert company.last_run.from_stock
    await put_back(site, name, backup)
    async with site.client("company") as company, site.client("clinic") as clinic:
        # What was dealt before is refused or discarded, item by item or all at once; no run of these uses it twice.
        assert [await answer(company) for _ in range(3)] == pytest.approx([1.5] * 3, abs=1e-2)
        assert not company.last_run.from_stock
        assert await answer(clinic) == pytest.approx(1.5, abs=1e-2)
        assert await company.reveal((await company.data("d"))["x"] * 1) == pytest.approx([0.25, -0.5], abs=1e-3)
        x = company.share([[1.0, 1.0, 1.0]], low=-1, high=1)
        await company.stock((await company.model("m"))(x), 1)
        assert await answer(company) == pytest.approx(1.5, abs=1e-2)
        assert company.last_run.from_stock


async def test_what_has_happened_since(site: Any, tmp_path: Path) -> None:
    """A version that was replaced is dropped, and until its owner uploads again nothing mixes."""
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        take(site.data("party1"), tmp_path / "old.backup")
        await company.upload(model(0.25), "m")
    await put_back(site, "party1", tmp_path / "old.backup")
    async with site.client("company") as company:
        await company.upload(model(0.125), "m")
        assert await answer(company) == pytest.approx(0.375, abs=1e-2)
    assert len(list((site.data("party1") / "models").iterdir())) == 1


@pytest.fixture
async def taken(site: Any, tmp_path: Path) -> tuple[Path, KeyPair]:
    """A party's backup, and its keys."""
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
    take(site.data("party0"), tmp_path / "party0.backup")
    return tmp_path / "party0.backup", site.keys["party0"]


def repacked(backup: Path, change: Any) -> Path:
    """Another archive, of the members that ``change`` makes of a name and its content."""
    other = backup.with_name("other.backup")
    with tarfile.open(backup) as old, tarfile.open(other, "w") as new:
        for member in old:
            content = old.extractfile(member)
            assert content is not None
            for name, data in change(member.name, content.read()):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                new.addfile(info, io.BytesIO(data))
    return other


@pytest.mark.parametrize("used", NEVER)
def test_what_must_not_be_put_back(taken: tuple[Path, KeyPair], tmp_path: Path, used: str) -> None:
    backup, keys = taken
    other = repacked(backup, lambda name, data: [(used, b"x"), (name, data)])
    with pytest.raises(ConfigurationError, match=f"holds {used}, .*: put back what `tessera backup` has taken"):
        restore(other, tmp_path / "data", keys)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / used).write_bytes(b"x")
    with pytest.raises(ConfigurationError, match=f"holds {used}"):
        restore(tmp_path / "packed", tmp_path / "data", keys)
    assert not (tmp_path / "data").exists()


def _longer(name: str, data: bytes) -> list[tuple[str, bytes]]:
    return [(name, data if name == MANIFEST else data + b"x")]


@pytest.mark.parametrize(
    "change",
    [
        lambda name, data: [] if name == MANIFEST else [(name, data)],
        lambda name, data: [] if name.startswith("models/") else [(name, data)],
        lambda name, data: [] if name == "models.sqlite" else [(name, data)],
        lambda name, data: [("../" + name, data)],
        lambda name, data: [("/tmp/" + name, data)],
        lambda name, data: [(name, data), (name, data)],
        lambda name, data: [(name, b"[]" if name == MANIFEST else data)],
        _longer,
    ],
    ids=["no manifest", "no shares", "no database", "above", "absolute", "twice", "another manifest", "longer"],
)
def test_what_is_no_backup(taken: tuple[Path, KeyPair], tmp_path: Path, change: Any) -> None:
    backup, keys = taken
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigurationError, match="tessera backup"):
        restore(repacked(backup, change), tmp_path / "data", keys)
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "other.backup"])


def test_one_that_was_cut_short(taken: tuple[Path, KeyPair], tmp_path: Path) -> None:
    backup, keys = taken
    content = backup.read_bytes()
    for size in (0, 100, 5000, len(content) // 2):
        backup.write_bytes(content[:size])
        with pytest.raises(ConfigurationError, match="tessera backup"):
            restore(backup, tmp_path / "data", keys)
    assert not (tmp_path / "data").exists()


def test_shares_that_were_changed(taken: tuple[Path, KeyPair], tmp_path: Path) -> None:
    """Their digest in the archive may be changed with them; the key's seal not."""
    import hashlib

    backup, keys = taken
    digests = {}

    def change(name: str, data: bytes) -> list[tuple[str, bytes]]:
        if name.startswith("models/"):
            data = data[:-1] + bytes([data[-1] ^ 1])
            digests[name] = [len(data), hashlib.sha256(data).hexdigest()]
        if name == MANIFEST:
            about = json.loads(data)
            about["files"].update(digests)
            data = json.dumps(about).encode()
        return [(name, data)]

    with pytest.raises(ConfigurationError, match="does not open as party0's with this key"):
        restore(repacked(backup, change), tmp_path / "data", keys)


def test_another_s_key_and_a_folder_in_use(taken: tuple[Path, KeyPair], site: Any, tmp_path: Path) -> None:
    backup, keys = taken
    for other in (KeyPair.generate(), site.keys["party1"]):
        with pytest.raises(ConfigurationError, match="does not open as party0's with this key"):
            restore(backup, tmp_path / "data", other)
    with pytest.raises(ConfigurationError, match="is not empty, and nothing is overwritten"):
        restore(backup, site.data("party1"), keys)
    (tmp_path / "data").mkdir(mode=0o700)
    assert restore(backup, tmp_path / "data", keys).versions == 1
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "data").rglob("*")} == {0}


def test_the_commands(taken: tuple[Path, KeyPair], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backup, keys = taken
    keys.save(tmp_path / "party0.key")
    whom = ["--key", str(tmp_path / "party0.key"), "--data", str(tmp_path / "back")]
    assert main(["restore", str(backup), *whom, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["member"] == "party0"
    again = ["backup", "--data", str(tmp_path / "back"), "--out", str(tmp_path / "again"), "--json"]
    assert main(again) == 0  # of a server that does not run
    assert json.loads(capsys.readouterr().out)["versions"] == 1
    assert main(again) == 3
    assert "exists, and nothing is overwritten" in json.loads(capsys.readouterr().out)["message"]
    assert main(["backup", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "x"), "--json"]) == 3
    assert "is no server's data folder" in json.loads(capsys.readouterr().out)["message"]
    assert not list(tmp_path.glob("*.part"))
