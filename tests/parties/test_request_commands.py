"""``tessera request``, ``requests``, ``show``, ``approve`` and ``deny``, as an owner and an analyst type them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import TesseraError
from parties import Client, DataSet, MemoryCluster
from parties.client.request_entries import State
from parties.commands import allow, approve, deny, models, request, requests, show, upload
from parties.commands.command_line import main, parser_for

from .test_requests import asked

COMMANDS: dict[str, Callable[..., Awaitable[int]]] = {
    "allow": allow.allow,
    "approve": approve.approve,
    "deny": deny.deny,
    "models": models.models,
    "request": request.request,
    "requests": requests.requests,
    "show": show.show,
    "upload": upload.upload,
}

VALUES = np.linspace(-0.5, 0.5, 30).reshape(15, 2)


@pytest.fixture
def typed(site: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command of a client prints, and its exit code."""

    async def run(client: str, *words: object, code: int = 0) -> str:
        options = parser_for([str(word) for word in words]).parse_args([str(word) for word in words])
        try:
            assert await COMMANDS[str(words[0])](site.client(client), options) == code
        except TesseraError as error:
            assert error.exit_code == code, error
            return str(error)
        return capsys.readouterr().out

    return run


async def test_the_story_as_it_is_typed(site: Any, typed: Any, tmp_path: Path) -> None:
    async with site.client("company") as company:
        await company.upload(DataSet({"x": VALUES}, low=-1, high=1), "trial")
    assert "may run on trial: schema" in await typed("company", "allow", "trial", "clinic", "--schema")
    async with site.client() as clinic:
        x = (await clinic.data("trial"))["x"]
        digest = clinic.save([x.T @ x, x.sum(axis=0)], tmp_path / "moments.program")
    # Before it asks, the analyst sees what the owner will see.
    words = await typed("clinic", "show", tmp_path / "moments.program")
    assert "!! result 2: 2 of its numbers are LINEAR in company/trial" in words
    file, why = tmp_path / "moments.program", "to find the mean"
    assert digest in await typed("clinic", "request", file, "--why", why)
    for client, head in (("company", "yours to decide:"), ("clinic", "yours:")):
        listed = await typed(client, "requests")
        assert listed.startswith(head)
        assert f"{digest}  asked" in listed
        assert why in listed
    assert await typed("company", "show", digest) == words
    said = json.loads(await typed("company", "show", digest, "--json"))
    assert said["results"][0]["numbers_per_row"] == [
        {"secret": "company/trial", "tensor": "x", "numbers": pytest.approx(4 / 15)}
    ]
    denied = json.loads(await typed("company", "deny", digest, "--why", "no sums, please", "--json"))
    assert denied["state"] == "denied"
    assert "company: denied (no sums, please)" in await typed("clinic", "requests")
    assert json.loads(await typed("clinic", "request", file, "--why", "again", "--json"))["program"] == digest
    approved = await typed("company", "approve", digest, "--name", "trial", "--why", "go on")
    assert "company: approved (go on)" in approved
    assert "holds for company/trial, version" in approved
    assert "LINEAR" in approved
    listed = json.loads(await typed("clinic", "requests", "--json"))
    assert [entry["state"] for entry in listed["mine_asked"]] == ["approved"]
    assert listed["mine_to_decide"] == []
    limited = await typed("company", "approve", digest, "--runs", 3, "--per-day", 2)
    assert "holds for company/trial so often: 3 runs in all, 2 runs a day" in limited
    np.savez(tmp_path / "less.npz", x=VALUES[:4])
    stored = await typed("company", "upload", tmp_path / "less.npz", "--name", "trial", "--range", "-1", "1")
    assert f"what clinic might run as {digest[:8]} has ended: company/trial has other types now" in stored
    for client in ("company", "clinic"):
        assert "has ended: company/trial has other types now" in await typed(client, "models")
    assert json.loads(await typed("company", "models", "--json"))["ended"][0]["program"] == digest
    assert "is withdrawn" in await typed("clinic", "request", "--withdraw", digest)
    assert "nobody asks anything of us" in await typed("clinic", "requests")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("request",), 2),
        (("request", "FILE"), 2),
        (("request", "FILE", "--withdraw", "0" * 64), 2),
        (("request", "nowhere", "--why", "x"), 2),
        (("request", "FILE", "--why", "x"), 4),
        (("request", "--withdraw", "0" * 64), 19),
        (("show", "0" * 64), 19),
        (("show", "0" * 8), 2),
        (("approve", "0" * 64), 19),
        (("deny", "0" * 64, "--why", "x"), 19),
        (("deny", "0" * 64, "--why", "x" * 501), 2),
        (("allow", "trial", "company", "--schema", "--nothing"), 2),
    ],
)
async def test_what_is_refused(typed: Any, tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    (tmp_path / "FILE").write_bytes(b"no program")
    with contextlib.chdir(tmp_path):
        assert await typed("clinic", *words, code=code)


async def test_over_sockets_from_the_command_line(
    wired: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.toml").write_text(wired.cluster.dumps())
    wired.keys["clinic"].save(tmp_path / "clinic.key")
    words = ["requests", "--cluster", str(tmp_path / "cluster.toml"), "--json"]
    assert await asyncio.to_thread(main, words) == 0
    assert json.loads(capsys.readouterr().out) == {"mine_to_decide": [], "mine_asked": []}


async def test_the_bit_about_intervals_is_told_from_results(site: Any, typed: Any, tmp_path: Path) -> None:
    async with site.client("company") as company:
        await company.upload(DataSet({"x": VALUES}, low=-9, high=9), "trial")
    await typed("company", "allow", "trial", "clinic", "--schema")
    async with site.client() as clinic:
        x = (await clinic.data("trial"))["x"]
        scale = clinic.share([1.0, 1.0], low=0, high=1)
        clinic.save([(x * scale).sigmoid(interval=(-8, 8)).sum()], tmp_path / "waves.program")
    words = await typed("clinic", "show", tmp_path / "waves.program")
    assert "gives    clinic 1 number: result 1, unless a value has left the interval of a function" in words
    assert "gives    clinic 1 number: result 2: only whether it is 0" in words
    said = json.loads(await typed("clinic", "show", tmp_path / "waves.program", "--json"))
    assert [result["flag"] for result in said["results"]] == [False, True]
    assert [result["gated"] for result in said["results"]] == [True, False]


@pytest.mark.parametrize("form", ["--json", "for people"])
async def test_following_prints_what_others_do(site: Any, capsys: pytest.CaptureFixture[str], form: str) -> None:
    words = ["requests", "--follow", *(["--json"] if form == "--json" else [])]
    options = parser_for(words).parse_args(words)
    async with site.client("company") as company:
        async with site.client() as clinic:
            digest, _ = await asked(site, company, clinic)
        printing = asyncio.create_task(requests.requests(site.client("clinic"), options))
        await company.approve(digest)
        printed = ""

        def said() -> bool:
            nonlocal printed
            printed += capsys.readouterr().out
            return "approved" in printed

        try:
            await site.until(said)
        finally:
            printing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await printing
    if form == "--json":
        assert json.loads(printed.splitlines()[-1])["program"] == digest
    else:
        assert printed.startswith("yours:\n")
        assert f"{digest}  approved" in printed


def test_a_script_follows_as_a_loop() -> None:
    with MemoryCluster(clients=("company", "clinic")) as cluster, Client(cluster, name="company") as company:
        company.upload(DataSet({"x": VALUES}, low=-1, high=1), "trial")
        company.allow("trial", "clinic", schema=True)
        with Client(cluster, name="clinic") as clinic:
            x = clinic.data("trial")["x"]
            digest = clinic.request(x.T @ x, "to learn")
            for entry in company.follow():
                if entry.state is State.APPROVED:
                    break
                company.approve(entry.program)
            assert clinic.approved(digest, timeout=0)
