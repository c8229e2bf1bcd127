"""Logs of servers: every line about a run says so, as text and as JSON, in tasks and threads that the run started."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from datetime import datetime

import pytest

from mpc.errors import PeerError, ProtocolViolation
from parties import Client, KeyPair, LocalCluster, Settings
from parties.host import logs
from parties.messages.runs import Failed, Opening, RunMessage

RUN = "0123456789abcdef" * 2


@pytest.fixture
def lines():
    """A logger called as a module of ours, and what it wrote in either format."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    log = logging.getLogger("parties.somewhere")
    log.addHandler(handler)
    log.propagate = False
    yield log, handler, stream
    log.removeHandler(handler)
    log.propagate = True


def test_a_line_of_json(lines):
    log, handler, stream = lines
    handler.setFormatter(logs.JsonFormatter("party0"))
    log.warning("nothing in %s", "particular")
    with logs.about(RUN, "clinic"):
        log.warning("two\nlines \x1b[2J")
    plain, of_run = (json.loads(line) for line in stream.getvalue().splitlines())
    assert plain.keys() == {"time", "level", "member", "logger", "message"}
    assert (plain["level"], plain["member"], plain["logger"]) == ("WARNING", "party0", "parties.somewhere")
    assert plain["message"] == "nothing in particular"
    assert abs(datetime.fromisoformat(plain["time"]).timestamp() - datetime.now().timestamp()) < 10
    assert (of_run["run"], of_run["client"], of_run["message"]) == (RUN, "clinic", "two\nlines \x1b[2J")


def test_a_traceback_is_part_of_its_line(lines):
    log, handler, stream = lines
    handler.setFormatter(logs.JsonFormatter("party0"))
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("internal error")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["traceback"].endswith("ValueError: no")


def test_a_line_of_text_names_the_run_once(lines):
    log, handler, stream = lines
    handler.setFormatter(logs.TextFormatter())
    with logs.about(RUN, "clinic"):
        log.warning("run %s failed", RUN[:8])
        log.warning("the disk is slow")
    log.warning("and so on")
    named, added, without = stream.getvalue().splitlines()
    assert named.endswith("run 01234567 failed")
    assert added.endswith("the disk is slow [run 01234567]")
    assert without.endswith("WARNING parties.somewhere: and so on")


async def test_what_a_run_starts_is_about_it(lines):
    log, handler, stream = lines
    handler.setFormatter(logs.JsonFormatter("party0"))
    loop, late = asyncio.get_running_loop(), asyncio.Event()

    async def task():
        await asyncio.to_thread(log.warning, "thread")
        log.warning("task")

    def timer():
        log.warning("timer")
        late.set()

    with logs.about(RUN, "clinic"):
        started = asyncio.create_task(task())
        loop.call_later(0.01, timer)
    with logs.about("f" * 32):
        await started
        await late.wait()
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert sorted(line["message"] for line in found) == ["task", "thread", "timer"]
    assert {line["run"] for line in found} == {RUN}


def test_links_speak_of_no_run():
    """Whatever run it was that had them read."""
    record = logging.LogRecord("parties.wire.receiver", logging.WARNING, "", 0, "m", (), None)
    with logs.about(RUN):
        assert logs.subject_of(record) == logs.Subject()


async def test_a_failed_run_at_every_server(site, caplog):
    caplog.set_level(logging.DEBUG, "parties")
    seen = []
    caplog.handler.addFilter(lambda record: seen.append((record, logs.subject_of(record))) or True)
    async with site.client() as client:
        x = client.share([0.5], low=-1, high=1)
        site.corrupt("party1", Opening, lambda m, b: [(m, [b[0][:-1]])])
        with pytest.raises(ProtocolViolation):
            await client.reveal(x * x * x)
        await site.settled()
    about_runs = [(record, subject) for record, subject in seen if "run " in record.getMessage()]
    assert len(about_runs) >= 4
    for record, subject in about_runs:
        assert subject.run[:8] in record.getMessage()
        assert len(subject.run) == 32
        assert subject.client == "clinic"


async def test_a_lost_peer_fails_each_run_under_its_own_name(site, caplog):
    seen = []
    caplog.handler.addFilter(lambda record: seen.append((record, logs.subject_of(record))) or True)
    async with site.client() as clinic, site.client("company") as company:
        # Nor that it has lost party0: clients are to learn that from party0, and to give nothing up before.
        silent = Opening | Failed
        site.corrupt("party1", RunMessage, lambda m, b: [] if isinstance(m, silent) else [(m, b)])

        async def run(client):
            x = client.share([0.5], low=-1, high=1)
            await client.reveal(x * x * x)

        runs = asyncio.gather(run(clinic), run(company), return_exceptions=True)
        await site.until(lambda: sum(job.waiting for job in site.servers["party0"].jobs.values()) == 2)
        site.transport.break_link("party0", "party1")
        assert all(isinstance(error, PeerError) for error in await runs)
        await site.settled()
    failed = [(r.getMessage(), subject) for r, subject in seen if r.getMessage().startswith("run ")]
    assert {subject.client for _, subject in failed} == {"clinic", "company"}
    assert all(subject.run[:8] in message for message, subject in failed)


@pytest.mark.parametrize("log_format", ["json", pytest.param("text", marks=pytest.mark.slow)])
def test_processes(log_format):
    secret = 1.2345678
    settings = Settings(threads=1, peer_timeout=2, round_timeout=2)
    with LocalCluster(2, settings=settings, verbose=True, log_format=log_format) as cluster:
        with Client(cluster) as client:
            for _ in range(2):  # a party says that the first is over before it begins the second
                client.reveal(client.share([secret], low=-4, high=4) ** 2)
            with pytest.raises(PeerError):
                cluster.processes["party1"].kill()
                client.reveal(client.share([secret], low=-4, high=4) ** 2)
        written = {name: (cluster.folder / f"{name}.log").read_text() for name in cluster.processes}
        keys = [KeyPair.load(cluster.key_path(name)).secret for name in cluster.processes]
    for name, text in written.items():
        assert str(secret) not in text
        assert not any(key in text for key in keys)
        lines = [line for line in text.splitlines() if "is over" in line or "failed" in line]
        assert lines, text
        if log_format == "json":
            for line in text.splitlines():
                found = json.loads(line)
                assert found["member"] == name
            assert all(len(json.loads(line)["run"]) == 32 for line in lines)
            assert json.loads(lines[0])["client"] == "client"
        else:
            assert all("run " in line for line in lines)


def test_configured_for_the_whole_process(monkeypatch):
    root = logging.getLogger()
    former, level = list(root.handlers), root.level
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        root.handlers.clear()
        logs.configure("json", "dealer")
        logging.getLogger("elsewhere").warning("heard")
        logging.getLogger("elsewhere").info("not heard")
        (line,) = stream.getvalue().splitlines()
        assert (json.loads(line)["member"], json.loads(line)["message"]) == ("dealer", "heard")
    finally:
        root.handlers[:] = former
        root.setLevel(level)
