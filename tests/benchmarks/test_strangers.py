"""``tessera bench strangers``: its figures, its records, its verdict, and that the attacks are what they say."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.records import read
from benchmarks.strangers import bench, insiders, outsiders, pictures, siege
from benchmarks.strangers.outsiders import OPENINGS, command, greeting
from benchmarks.strangers.siege import ATTACKS, SLACK, Block, Course, summary, together
from mpc.errors import NotAsPromised, UsageError
from mpc.security import Security
from parties.commands.command_line import main

MIB = 1 << 20
MEMORY = siege.MEMORY[Security.SEMI_HONEST]


def test_the_bytes_of_zmtp() -> None:
    assert len(greeting()) == len(greeting("NULL", as_server=True)) == 64
    assert greeting()[12:20] == b"CURVE\0\0\0"
    assert greeting(as_server=True)[32] == 1
    assert command(b"x" * 255)[:2] == b"\x04\xff"
    assert command(b"x" * 256)[:9] == b"\x06" + (256).to_bytes(8, "big")
    assert len({name: opening() for name, opening in OPENINGS.items()}) == len(OPENINGS)


@pytest.mark.parametrize(("kind", "mode"), [((0, 1), "L"), ((6, 4), "RGBA")])
def test_pictures_are_small_as_files_and_large_in_memory(kind: tuple[int, int], mode: str) -> None:
    data = pictures.plain_png(800, kind)
    assert len(data) < 800 * 800 * kind[1] / 900
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert (picture.mode, picture.size) == (mode, (800, 800))
        assert np.asarray(picture).max() == 0


def test_an_attack_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "strangers", "siege"]) == UsageError.exit_code
    assert "there is no attack called 'siege': there are 'no key'" in capsys.readouterr().err


def test_the_help_names_every_attack(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "strangers", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said for name in ATTACKS)
    assert len(set(ATTACKS)) == len(ATTACKS)


# -- the verdict -------------------------------------------------------------------------------------------------------


def block(seconds: float, **others: Any) -> Block:
    return Block(
        **{
            "seconds": [seconds] * 50,
            "online": [seconds / 4] * 50,
            "failures": 0,
            "lasted": 4.0,
            "cpu_seconds": 1.0,
            "peak_bytes": 300 * MIB,
            "descriptors": 40,
        }
        | others
    )


def course(seconds: float = 0.1, **others: Any) -> Course:
    return Course(**{"quiet": [block(0.04)] * 4, "attacked": [block(seconds)] * 3, "tallies": [{}] * 3} | others)


def test_what_is_within_its_bounds() -> None:
    found = summary(course(), MEMORY)
    assert found["within"] == {"p99": True, "memory": True, "others": True}
    assert found["ratio"] == pytest.approx({"seconds": 2.5, "p99_seconds": 2.5, "p99_online_seconds": 2.5})
    assert found["server"]["cpu"] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("besieged", "beyond"),
    [
        pytest.param(course(0.121), "p99", id="three times as slow"),
        pytest.param(course(restarted_bytes=((MEMORY + SLACK) << 20) + 1), "memory", id="memory, started again"),
        pytest.param(
            course(attacked=[block(0.1)] * 2 + [block(0.1, peak_bytes=385 * MIB)]), "memory", id="memory, of one block"
        ),
        pytest.param(course(tallies=[{"peak_bytes": pictures.MOST + 1}]), "memory", id="memory, of pictures"),
        pytest.param(course(attacked=[block(0.1, failures=1)] + [block(0.1)] * 2), "others", id="a refusal"),
        pytest.param(course(refused=1), "others", id="a refusal afterwards"),
        pytest.param(course(burnt=1), "others", id="burnt stock"),
        pytest.param(course(tallies=[{"unanswered": 1}, {}]), "others", id="a photograph afterwards"),
    ],
)
def test_what_is_not(besieged: Course, beyond: str) -> None:
    assert [name for name, within in summary(besieged, MEMORY)["within"].items() if not within] == [beyond]


def test_one_disturbed_block_of_three_is_no_verdict() -> None:
    assert summary(course(attacked=[block(0.1), block(0.9), block(0.1)]), MEMORY)["within"]["p99"]


def test_uploads_have_no_rounds() -> None:
    uploads = [block(0.02, online=[])]
    assert "p99_online_seconds" not in summary(course(quiet=uploads * 4, attacked=uploads * 3), MEMORY)["ratio"]


def test_tallies_of_several_blocks() -> None:
    tallies = [
        {"sent": 2, "longest_seconds": 0.5, "peak_bytes": 7, "refused": {"ServerBusy": 1}},
        {"sent": 3, "longest_seconds": 0.1, "peak_bytes": 9, "refused": {"ServerBusy": 1, "TooLarge": 2}},
    ]
    assert together(tallies) == {
        "sent": 5,
        "longest_seconds": 0.5,
        "peak_bytes": 9,
        "refused": {"ServerBusy": 2, "TooLarge": 2},
    }
    assert together([{}, {}]) == {}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attack is within its bounds, but for one with MACs."""

    def besieged(name: str, security: str, _: object, advance: Any) -> dict[str, Any]:
        advance()
        slow = (name, security) == ("heavy programs", "malicious")
        return {"attack": name, "security": security, **summary(course(0.2 if slow else 0.1), MEMORY)}

    monkeypatch.setattr(bench, "besieged", besieged)


@pytest.mark.usefixtures("measured")
def test_a_row_that_is_not_within_its_bounds_fails_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, words = tmp_path / "out.jsonl", ["bench", "strangers", "--security"]
    assert main([*words, "semi-honest", "--out", str(path)]) == 0
    assert main([*words, "both", "heavy programs", "false ids"]) == NotAsPromised.exit_code
    printed = capsys.readouterr()
    assert "heavy programs (malicious: p99)" in printed.err
    assert all(f"derm, {security}, 2 parties" in printed.out for security in ("semi-honest", "malicious"))
    assert [record.case["attack"] for record in read(path)] == list(ATTACKS)
    assert {record.case["security"] for record in read(path)} == {"semi-honest"}
    assert "ratio.p99_seconds" in read(path)[0].figures


@pytest.mark.usefixtures("measured")
def test_so_it_says_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "strangers", "heavy programs", "--json", "--security"]
    assert main([*words, "malicious"]) == NotAsPromised.exit_code
    found = json.loads(capsys.readouterr().out)
    assert (found["error"], found["code"], found["member"]) == ("NotAsPromised", NotAsPromised.exit_code, None)
    assert found["advice"]
    assert [row["within"] for row in found["rows"]] == [{"p99": False, "memory": True, "others": True}]
    assert main([*words, "semi-honest"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "error" not in found
    assert found["rows"][0]["security"] == "semi-honest"


# -- measured ----------------------------------------------------------------------------------------------------------


def rows(
    names: list[str], capsys: pytest.CaptureFixture[str], *words: str, security: str = "semi-honest"
) -> dict[str, dict[str, Any]]:
    """Of a short run; whether each is within its bounds is left to machines that do nothing else."""
    arguments = ["bench", "strangers", *names, "--seconds", "2", "--pairs", "1", "--json", "--security", security]
    assert main([*arguments, *words]) in (0, NotAsPromised.exit_code)
    found = {row["attack"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert list(found) == names
    for name, row in found.items():
        server = row["server"]
        assert row["within"]["others"], name
        assert row["within"]["memory"], name
        assert row["quiet"]["p99_seconds"] >= row["quiet"]["seconds"]["median"] > 0
        assert row["ratio"]["p99_seconds"] > 0
        assert server["restarted_bytes"] > 0
        assert server["resident_bytes_before"] / 2 < server["peak_bytes"]
        assert server["cpu"] < 2
    return found


@pytest.mark.slow
def test_strangers(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(["replayed handshake", "slow-loris"], capsys, "--rate", "50", "--connections", "30")
    for name, row in found.items():
        server = row["server"]
        assert row["attackers"]["opened"] >= 20
        assert server["descriptors_after"] <= server["descriptors_before"] + 2
        assert server["descriptors_during"] >= server["descriptors_before"] + 20 * (name == "slow-loris")
        assert server["log_lines"] <= 6
    assert found["replayed handshake"]["attackers"]["closed"] >= 20, "the server shows them the door"


@pytest.mark.slow
@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
def test_members(security: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(["delayed uploads", "burnt stock", "false ids", "long descriptions"], capsys, security=security)
    # Of two clients the other may not have had its turn: attackers take what a busy machine leaves them.
    assert found["delayed uploads"]["attackers"]["sent"] >= 3 * insiders.RULES, "one client, to three servers"
    assert found["long descriptions"]["attackers"]["refused"]["ProgramError"] > 0
    assert found["false ids"]["attackers"] == {}


@pytest.mark.slow
def test_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    for row in rows(list(pictures.FED), capsys).values():
        tally = row["attackers"]
        assert tally["sent"] >= 2
        assert tally["refused"]["EncodingError"] > 0
        assert 100 * MIB < tally["peak_bytes"] <= pictures.MOST, "the largest was decoded"


@pytest.mark.slow
def test_every_stranger(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--seconds", "1", "--pairs", "1", "--rate", "100"]
    assert main(["bench", "strangers", *outsiders.ATTACKS, *words]) in (0, NotAsPromised.exit_code)
    printed = capsys.readouterr().out
    assert all(name in printed for name in outsiders.ATTACKS)
