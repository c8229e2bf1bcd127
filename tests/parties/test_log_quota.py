"""What members can have a server log: so many lines in a span, and then how many there were."""

import asyncio
import io
import logging
from types import SimpleNamespace

import pytest

from parties.host import log_quota
from parties.host.log_quota import LINES, OWN_LINES, SPAN, QuotaHandler, caused_by
from parties.messages.rules import AllowUse
from parties.wire.messages import Message


class Bench:
    def __init__(self, monkeypatch):
        self.now = 0.0
        self.timers = []
        monkeypatch.setattr(log_quota.threading, "Timer", self.timer)
        self.stream = io.StringIO()
        self.handler = QuotaHandler()
        self.handler.setStream(self.stream)

    def timer(self, seconds, later):
        self.timers.append(later)
        return SimpleNamespace(daemon=False, start=lambda: None, cancel=lambda: None)

    def log(self, text, name="parties.somewhere", level=logging.WARNING):
        record = logging.LogRecord(name, level, "", 0, text, None, None)
        record.created = self.now
        self.handler.handle(record)

    def lines(self):
        found = self.stream.getvalue().splitlines()
        self.stream.seek(0)
        self.stream.truncate()
        return found


@pytest.fixture
def bench(monkeypatch):
    return Bench(monkeypatch)


def test_a_member_has_so_many_lines_in_a_span_and_others_theirs(bench):
    for _ in range(3 * LINES):
        with caused_by("clinic"):
            bench.log("c")
    with caused_by("company"):
        bench.log("other")
    bench.log("own")
    assert bench.lines() == ["c"] * LINES + ["other", "own"]
    bench.now = SPAN + 1
    bench.log("later")
    assert bench.lines() == [f"{2 * LINES} more lines that clinic has caused within 10 s were left out", "later"]
    with caused_by("clinic"):
        bench.log("again")
    assert bench.lines() == ["again"]


def test_what_is_logged_for_those_who_watch_never_keeps_a_warning_out(bench):
    with caused_by("party1"):
        for _ in range(OWN_LINES + 2):
            bench.log("detail", level=logging.DEBUG)
        bench.log("warning")
    assert bench.lines() == ["detail"] * OWN_LINES + ["warning"]
    bench.timers[0]()
    assert bench.lines() == ["2 more lines that party1 has caused within 10 s were left out"]


def test_what_was_left_out_is_said_though_nothing_is_logged_after_it(bench):
    with caused_by("party1"):
        for _ in range(LINES + 7):
            bench.log("x")
    assert len(bench.timers) == 1
    bench.timers[0]()
    assert bench.lines()[LINES:] == ["7 more lines that party1 has caused within 10 s were left out"]
    with caused_by("party1"):
        for _ in range(LINES + 1):
            bench.log("y")
    bench.handler.close()
    assert bench.lines()[LINES:] == ["1 more lines that party1 has caused within 10 s were left out"]


def test_links_have_a_quota_and_the_server_a_larger_one_of_its_own(bench):
    for _ in range(LINES + 2):
        bench.log("link", name="parties.wire.transport")
    for _ in range(OWN_LINES + 3):
        bench.log("own")
    bench.timers[0]()
    assert bench.lines()[LINES + OWN_LINES :] == [
        "2 more lines that parties.wire has caused within 10 s were left out",
        "3 more lines of its own within 10 s were left out",
    ]


async def test_whoever_sends_it_has_caused_what_is_logged_of_a_message(site):
    seen = []

    class Ear(logging.Handler):
        def emit(self, record):
            seen.append((log_quota.cause_of(record), record.getMessage()))

    ear = Ear()
    logging.getLogger("parties").addHandler(ear)
    try:
        endpoint = site.endpoint("company")
        async with endpoint:
            await endpoint.connect(deadline=20)
            for i in range(3):
                ask: Message = AllowUse(request=f"{i:032x}")
                endpoint.send("party0", ask)
            await site.until(lambda: len(seen) >= 3)
        await asyncio.sleep(0)
    finally:
        logging.getLogger("parties").removeHandler(ear)
    assert {cause for cause, text in seen if "AllowUse" in text} == {"company"}
