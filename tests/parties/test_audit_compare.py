"""Audit logs as files: what verification finds in one, and comparison in two, with nothing but the cluster file."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpc.errors import AuditError, ConfigurationError
from parties import Cluster, KeyPair
from parties.commands.command_line import main
from parties.messages.audit import SignedHead
from parties.messages.bindings import Binding
from parties.operate.audit import facts
from parties.operate.audit import log as log_module
from parties.operate.audit.compare import Difference, compare
from parties.operate.audit.facts import KINDS, Fact, kind_of
from parties.operate.audit.files import FOLDER, log_files
from parties.operate.audit.log import AuditLog, Happened
from parties.operate.audit.verify import Walk, verified
from parties.operate.audit.words import moment, sentence

from .test_audit_log import CLUSTER, KEYS

MINUTE = 60_000
RUN = facts.Run(
    "ab" * 16, "clinic", "cd" * 32, (Binding("company/m", "ef" * 16, "9a" * 32),), "ok", began=1_000, keep="kept"
)
UPLOAD = facts.Upload("company", "m", "ef" * 16)
RULE = facts.RuleChange("company", "m", "clinic", ("predict",), "12" * 16)


class Clock:
    """In ms; goes on by a second a look."""

    def __init__(self) -> None:
        self.at = 1_700_000_000_000

    def __call__(self) -> int:
        self.at += 1000
        return self.at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(log_module, "now", clock)
    return clock


class Made:
    """A server's log, in a data folder."""

    def __init__(self, folder: Path, clock: Clock, member: str = "party0") -> None:
        self.folder, self.member, self.clock = folder / member, member, clock
        self.log = AuditLog(self.folder, KEYS[member], CLUSTER.member(member), CLUSTER)

    def put(self, *what: Fact) -> None:
        self.log.append([Happened(self.clock(), fact) for fact in what])
        self.log.anchor({})

    @property
    def head(self) -> SignedHead:
        return SignedHead.of(*self.log.head, self.clock(), KEYS[self.member])

    def restart(self) -> None:
        self.log._release()
        self.log = AuditLog(self.folder, KEYS[self.member], CLUSTER.member(self.member), CLUSTER)


def pair(tmp_path: Path, clock: Clock, *members: str) -> tuple[Made, Made]:
    """Both have been there for a while."""
    one, other = (Made(tmp_path, clock, member) for member in members or ("party0", "party1"))
    clock.at += 10 * MINUTE
    return one, other


def differences(one: Made, other: Made) -> list[Difference]:
    """After both have been there for a while."""
    one.clock.at += 10 * MINUTE
    for made in (one, other):
        made.put(facts.Refused("clinic", "Prepare", "NotPermitted", 1, 1))
    walks = [Walk(made.folder, (CLUSTER,)) for made in (one, other)]
    found = compare(*walks)
    assert not [walk.problems for walk in walks if walk.problems]
    return found


# -- one log -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Made:
    """In several files."""
    monkeypatch.setattr(log_module, "MAX_FILE_BYTES", 2500)
    made = Made(tmp_path, clock)
    for number in range(10):
        made.put(facts.Refused("clinic", "Prepare", "NotPermitted", number, 1), RUN)
    made.log.close()
    return made


def test_what_its_server_wrote_is_found_so(written: Made) -> None:
    walk = verified(written.folder, (CLUSTER,))
    assert (walk.problems, walk.notes, walk.member) == ([], [], "party0")
    assert walk.count == written.log.head.number
    assert len(log_files(written.folder / FOLDER)) > 3
    # A copy of the folder, and one file of it.
    assert not verified(written.folder / FOLDER, (CLUSTER,)).problems
    last = verified(log_files(written.folder / FOLDER)[-1], (CLUSTER,))
    assert not last.problems
    assert "this is one file of a log" in last.notes[0]


def tampered(lines: list[bytes], draw: random.Random) -> list[bytes]:
    """Anything but cutting whole lines off its end."""
    at = draw.randrange(len(lines) - 1)
    line, other = lines[at], draw.randrange(len(lines))
    byte = draw.randrange(len(line) - 1)
    kind = draw.randrange(7)
    if kind == 0:
        return [*lines[:at], *lines[at + 1 :]]
    if kind == 1:
        return [*lines[: at + 1], *lines[at:]]
    if kind == 2:
        return [*lines[:at], lines[at + 1], line, *lines[at + 2 :]]
    if kind == 3:
        return [
            *lines[:at],
            line[:byte] + bytes([line[byte] ^ 1 << draw.randrange(7)]) + line[byte + 1 :],
            *lines[at + 1 :],
        ]
    if kind == 4:
        return [*lines[:at], line[:byte], *lines[at + 1 :]]
    if kind == 5 and lines[other] != line:
        return [*lines[:at], lines[other], *lines[at + 1 :]]
    return [*lines[:at], draw.randbytes(80) + b"\n", *lines[at:]]


def test_no_change_goes_unseen(written: Made) -> None:
    draw = random.Random(5)
    for _ in range(60):
        path = draw.choice(log_files(written.folder / FOLDER))
        text = path.read_bytes()
        path.write_bytes(b"".join(tampered(text.splitlines(keepends=True), draw)))
        assert verified(written.folder, (CLUSTER,)).problems
        path.write_bytes(text)
    assert not verified(written.folder, (CLUSTER,)).problems


def test_no_lost_file_goes_unseen(written: Made, tmp_path: Path) -> None:
    for number, path in enumerate(log_files(written.folder / FOLDER)[:-1]):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(written.folder / FOLDER, copy)
        (copy / path.name).unlink()
        assert any("missing" in p or "not here" in p for p in verified(copy, (CLUSTER,)).problems)
    with pytest.raises(ConfigurationError, match="there is no audit log"):
        verified(tmp_path, (CLUSTER,))


def test_what_was_deleted_as_agreed_is_no_problem(written: Made, clock: Clock) -> None:
    written.restart()
    clock.at += 3 * 86_400_000
    written.put(RUN)
    written.log.prune(1)
    walk = verified(written.folder, (CLUSTER,))
    assert walk.first is not None
    assert walk.first.number > 1
    assert walk.problems == []


def test_another_key_is_no_signature_of_its(written: Made) -> None:
    keys = dict(KEYS, party0=KeyPair.generate())
    other = Cluster.build(
        "within",
        dealer=("h:1", keys["dealer"].public),
        parties=[("party0", "h:2", keys["party0"].public), ("party1", "h:3", keys["party1"].public)],
        clients=[("clinic", keys["clinic"].public)],
    )
    assert "no cluster file given lists" in verified(written.folder, (other,)).problems[0]
    assert not verified(written.folder, (other, CLUSTER)).problems


def test_what_the_server_found_at_its_start_is_a_problem(written: Made) -> None:
    path = log_files(written.folder / FOLDER)[-1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert not verified(written.folder, (CLUSTER,)).problems
    written.restart()
    missing, said = verified(written.folder, (CLUSTER,)).problems
    assert "are missing" in missing
    assert "BROKEN" in said


# -- two logs ----------------------------------------------------------------------------------------------------------


def test_honest_logs_go_together(tmp_path: Path, clock: Clock) -> None:
    one, other = pair(tmp_path, clock)
    for made in (one, other):
        made.put(UPLOAD, RULE, RUN)
    for made, peer in ((one, other), (other, one)):
        made.put(facts.PeerHead(peer.member, peer.head))
    one.restart()
    assert differences(one, other) == []


def without(made: Made, keep: int) -> None:
    """Its operator, who has the key, writes it anew from there on, anchor and all."""
    path = log_files(made.folder / FOLDER)[-1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:keep]))
    made.log._release()
    for anchor in made.folder.glob("audit.sqlite*"):
        anchor.unlink()
    made.log = AuditLog(made.folder, KEYS[made.member], CLUSTER.member(made.member), CLUSTER)


def test_a_log_that_was_cut_has_the_other_ones_head_against_it(tmp_path: Path, clock: Clock) -> None:
    one, other = pair(tmp_path, clock)
    for made in (one, other):
        made.put(RUN)
    one.put(facts.PeerHead("party1", other.head))
    path = log_files(other.folder / FOLDER)[-1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    walks = [Walk(made.folder, (CLUSTER,)) for made in (one, other)]
    (found,) = (difference for difference in compare(*walks) if difference.contradiction)
    assert not walks[1].problems
    assert "where the log ends at entry 2: it was truncated" in found.text


def test_a_log_that_was_written_anew_has_the_other_ones_head_against_it(tmp_path: Path, clock: Clock) -> None:
    one, other = pair(tmp_path, clock)
    for made in (one, other):
        made.put(RUN)
    one.put(facts.PeerHead("party1", other.head))
    lines = log_files(other.folder / FOLDER)[-1].read_bytes().splitlines(keepends=True)
    head = log_module.Head(other.log.head.log, 2, log_module.read_line(lines[2][:-1]).previous)
    text = b"".join(lines[:2])
    for what in (facts.Removal("company", "m", "34" * 16), facts.Removal("company", "n", "34" * 16)):
        head, line = log_module.next_line(head, clock(), what, KEYS["party1"])
        text += line + b"\n"
    log_files(other.folder / FOLDER)[-1].write_bytes(text)
    walks = [Walk(made.folder, (CLUSTER,)) for made in (one, other)]
    found = [difference.text for difference in compare(*walks) if difference.contradiction]
    assert not walks[1].problems
    assert any("party1 has rewritten its log" in text for text in found)


def changed(what: Any, **fields: Any) -> Any:
    return log_module.msgspec.structs.replace(what, **fields)


@pytest.mark.parametrize(
    ("here", "there", "contradiction"),
    [
        ([RUN], [], True),
        ([], [RUN], True),
        ([changed(RUN, outcome="PeerLost")], [], False),
        ([changed(RUN, outcome="released")], [], False),
        ([RUN], [changed(RUN, outcome="PeerLost", culprit="party0")], False),
        ([RUN], [changed(RUN, program="00" * 32)], True),
        ([RUN], [changed(RUN, used=())], True),
        ([RUN], [changed(RUN, client="company")], True),
        ([RUN], [changed(RUN, program="00" * 32, outcome="ProgramError")], False),
        ([UPLOAD], [], True),
        ([UPLOAD], [changed(UPLOAD, name="n")], True),
        ([UPLOAD], [facts.Refused("company", "Upload", "ProgramError", 1, 1_700_000_600_000)], False),
        ([RULE], [], False),
        ([RULE], [changed(RULE, programs=("any",))], False),
        ([facts.Removal("company", "m", "34" * 16)], [], False),
        ([facts.Removal("company", "m", "34" * 16)] * 2, [facts.Removal("company", "m", "56" * 16)], False),
        ([facts.Evidence("clinic", "inputs", "56" * 32)], [], False),
        ([facts.CheckFailed("ab" * 16)], [], False),
        ([facts.ClusterChange(2, "78" * 32)], [], False),
        ([facts.ClusterChange(2, "78" * 32)], [facts.ClusterChange(2, "9a" * 32)], True),
    ],
)
def test_what_may_differ_is_told_from_what_may_not(
    tmp_path: Path, clock: Clock, here: list[Fact], there: list[Fact], contradiction: bool
) -> None:
    one, other = pair(tmp_path, clock)
    one.put(*here)
    other.put(*there)
    (found,) = differences(one, other)
    assert found.contradiction == contradiction, found.text


def test_what_a_dealer_has_dealt_need_not_reach_a_party(tmp_path: Path, clock: Clock) -> None:
    dealer, party = pair(tmp_path, clock, "dealer", "party0")
    dealer.put(RUN)
    (found,) = differences(dealer, party)
    assert not found.contradiction


@pytest.mark.parametrize("crash", [True, False])
def test_a_server_that_was_down_need_not_know(tmp_path: Path, clock: Clock, crash: bool) -> None:
    one, other = pair(tmp_path, clock)
    if not crash:
        other.log.close()
    clock.at += 5 * MINUTE
    one.put(UPLOAD)
    clock.at += 5 * MINUTE
    other.restart()
    (found,) = differences(one, other)
    assert not found.contradiction
    assert "being started" in found.text


def test_what_lies_outside_of_the_other_log_is_no_contradiction(tmp_path: Path, clock: Clock) -> None:
    one = Made(tmp_path, clock)
    one.put(RUN)
    clock.at += 10 * MINUTE
    other = Made(tmp_path, clock, "party1")
    (found,) = differences(one, other)
    assert not found.contradiction
    one.put(changed(RUN, run="99" * 16))
    walks = [Walk(made.folder, (CLUSTER,)) for made in (one, other)]
    assert not any(difference.contradiction for difference in compare(*walks))


def test_a_head_that_was_never_signed_speaks_against_its_keeper(tmp_path: Path, clock: Clock) -> None:
    one, other = pair(tmp_path, clock)
    log, number, digest = other.log.head
    one.put(facts.PeerHead("party1", SignedHead.of(log, number, digest, 1, KEYS["clinic"])))
    (found,) = differences(one, other)
    assert found.contradiction
    assert "party0 keeps a head that party1 has not signed" in found.text


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster_file(tmp_path: Path) -> str:
    path = tmp_path / "cluster.toml"
    path.write_text(CLUSTER.dumps())
    return str(path)


def test_show(tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(tmp_path, clock)
    made.put(RUN, UPLOAD, RULE, facts.Removal("clinic", "kept", "34" * 16))

    def shown(*flags: str) -> list[str]:
        assert main(["audit", "show", "--data", str(made.folder), "--json", *flags]) == 0
        return [entry["what"]["kind"] for entry in json.loads(capsys.readouterr().out)["entries"]]

    assert shown() == ["file", "started", "run", "upload", "rule", "removal"]
    assert shown("--kind", "run", "--kind", "rule") == ["run", "rule"]
    assert shown("--client", "clinic") == ["run", "rule", "removal"]
    assert shown("--owner", "company") == ["run", "upload", "rule"]
    assert shown("--secret", "kept") == ["run", "removal"]
    when = {kind_of(entry.what): entry.when for entry, _ in Walk(made.folder, (CLUSTER,))}
    assert shown("--since", moment(when["upload"])) == ["upload", "rule", "removal"]
    assert shown("--since", "1d") == []
    assert main(["audit", "show", str(made.folder)]) == 0
    text = capsys.readouterr().out
    assert "clinic ran cdcdcdcd on company/m efefefef by rule 9a9a9a9a, keeps 'kept': ok" in text
    assert main(["audit", "show", str(made.folder), "--since", "yesterday"]) == 2
    assert "neither a time nor an age" in capsys.readouterr().err


def test_verify(
    written: Made, cluster_file: str, tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Made(tmp_path, clock, "party1")
    other.put(facts.PeerHead("party0", written.head))
    command = ["audit", "verify", str(written.folder), "--cluster", cluster_file]
    assert main([*command, "--with", str(other.folder)]) == 0
    assert "OK" in capsys.readouterr().out
    path = log_files(written.folder / FOLDER)[-1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert main(command) == 0
    assert "only the others' logs show" in capsys.readouterr().out
    assert main([*command, "--with", str(other.folder), "--json"]) == AuditError.exit_code
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["exit_code"]) == (False, AuditError.exit_code)
    failed(found)
    assert "truncated" in found["held_against"][0]["text"]
    path.write_bytes(b"nonsense\n")
    assert main(command) == AuditError.exit_code
    assert "FAIL" in capsys.readouterr().out


def failed(found: dict[str, Any]) -> None:
    """As every command says it that fails."""
    assert (found["error"], found["code"], found["member"]) == ("AuditError", AuditError.exit_code, None)
    assert found["message"]
    assert found["advice"]


def test_compare(tmp_path: Path, clock: Clock, cluster_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = pair(tmp_path, clock)
    one.put(RULE)
    command = ["audit", "compare", str(one.folder), str(other.folder), "--cluster", cluster_file]
    assert main(command) == 0
    assert "difference" in capsys.readouterr().out
    one.put(RUN)
    assert [difference.contradiction for difference in differences(one, other)] == [False, True]
    assert main([*command, "--json"]) == AuditError.exit_code
    found = json.loads(capsys.readouterr().out)
    failed(found)
    assert [d["contradiction"] for d in found["differences"]] == [False, True]
    assert main(command) == AuditError.exit_code
    assert "CONTRADICTION" in capsys.readouterr().out


SAID: dict[str, Callable[[], Fact]] = {
    "run": lambda: RUN,
    "refused": lambda: facts.Refused("", "Prepare", "NotPermitted", 3, 1),
    "upload": lambda: UPLOAD,
    "removal": lambda: facts.Removal("company", "m", "34" * 16),
    "rule": lambda: RULE,
    "approval": lambda: facts.Approval("clinic", "cd" * 32, "approved", ("company/m",), "company"),
    "stock": lambda: facts.StockOrder("clinic", "cd" * 32, 10, 5, RUN.used),
    "check-failed": lambda: facts.CheckFailed("ab" * 16, "party1", "10 items"),
    "evidence": lambda: facts.Evidence("clinic", "inputs", "56" * 32, "ab" * 16),
    "cluster": lambda: facts.ClusterChange(2, "78" * 32, ("party0",), "adds clinic"),
    "file": lambda: facts.File("party0", KEYS["party0"].public, "within"),
    "started": lambda: facts.Started("0.3.0", "78" * 32, clean=False),
    "stopped": facts.Stopped,
    "head": lambda: facts.PeerHead("party1", SignedHead.of("0" * 16, 1, "cd" * 32, 1, KEYS["party1"]), "it had 2"),
    "cut": lambda: facts.Cut(3, "cd" * 32),
    "broken": lambda: facts.Broken(3, "cd" * 32, "why"),
    "unsaid": lambda: facts.Unsaid("run"),
    "deleted": lambda: facts.Deleted(3, "cd" * 32),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_written_read_and_put_into_words(tmp_path: Path, clock: Clock, kind: str) -> None:
    fact = SAID[kind]()
    assert kind_of(fact) == kind
    made = Made(tmp_path, clock)
    made.put(fact)
    walk = verified(made.folder, (CLUSTER,))
    assert walk.last is not None
    assert walk.last.what == fact
    assert sentence(walk.last.what)
