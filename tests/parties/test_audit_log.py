"""A server's audit log on its disk: one signed chain, whatever crashes, fills up, or is done to it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mpc.errors import ConfigurationError, DiskFull, TesseraError
from parties import Cluster, KeyPair
from parties.operate.audit import log as log_module
from parties.operate.audit.entry import Entry, after, read_line
from parties.operate.audit.facts import (
    KINDS,
    Broken,
    ClusterChange,
    Cut,
    Deleted,
    Fact,
    File,
    Refused,
    Removal,
    Started,
    Stopped,
    Unsaid,
    kind_of,
)
from parties.operate.audit.files import FOLDER, lines, log_files
from parties.operate.audit.log import AuditFailed, AuditLog, Happened, now
from parties.operate.audit.verify import verified
from parties.operate.cluster.rekey import rekey

KEYS = {name: KeyPair.generate() for name in ("dealer", "party0", "party1", "clinic")}
CLUSTER = Cluster.build(
    "within",
    dealer=("h:1", KEYS["dealer"].public),
    parties=[("party0", "h:2", KEYS["party0"].public), ("party1", "h:3", KEYS["party1"].public)],
    clients=[("clinic", KEYS["clinic"].public)],
)


def opened(folder: Path, member: str = "party0") -> AuditLog:
    return AuditLog(folder, KEYS[member], CLUSTER.member(member), CLUSTER)


def fact(number: int = 0) -> Fact:
    return Refused("clinic", "Prepare", "NotPermitted", number, 1)


def put(log: AuditLog, *numbers: int) -> None:
    log.append([Happened(now(), fact(number)) for number in numbers])
    log.anchor({})


def entries(folder: Path) -> list[Entry]:
    return [read_line(line.text) for path in log_files(folder / FOLDER) for line in lines(path)]


def facts(folder: Path) -> list[Fact]:
    return [entry.what for entry in entries(folder)]


def chained(found: Sequence[Entry]) -> bool:
    """Numbers and hashes follow, and all is signed."""
    own = CLUSTER.member("party0")
    heads = [after(entry, msgspec.json.encode(entry)) for entry in found]
    return all(entry.signed_by(own) for entry in found) and all(
        (entry.log, entry.number, entry.previous) == (head.log, head.number + 1, head.hash)
        for head, entry in zip(heads, found[1:], strict=False)
    )


def crash(log: AuditLog) -> None:
    """It writes nothing more."""
    log._release()


def test_what_is_appended_is_one_signed_chain(tmp_path: Path) -> None:
    for _ in range(2):
        log = opened(tmp_path)
        put(log, 1, 2)
        put(log, 3)
        log.close()
    found = entries(tmp_path)
    assert chained(found)
    assert [kind_of(entry.what) for entry in found] == ["file", *["started", *["refused"] * 3, "stopped"] * 2]
    assert found[0].what == File("party0", KEYS["party0"].public, "within")
    assert [entry.number for entry in found] == list(range(1, len(found) + 1))
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / FOLDER, *log_files(tmp_path / FOLDER)))


def test_an_entry_has_one_form(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (line, *_) = (line.text for line in lines(*log_files(tmp_path / FOLDER)))
    assert read_line(line).signed_by(CLUSTER.member("party0"))
    assert not read_line(line).signed_by(CLUSTER.member("party1"))
    for other in (
        line + b" ",
        line.replace(b":", b": ", 1),
        line[:-1],
        line.replace(b'"number":1', b'"number":1,"number":1'),
        line.replace(b'"kind":"file"', b'"kind":"fact"'),
        b"[" * 5000,
        b"",
        b"\xff" + line,
    ):
        with pytest.raises(ValueError, match="not an entry"):
            read_line(other)


@pytest.mark.parametrize(
    "what",
    [
        Removal("company", "no name\n", "12" * 16),
        Removal("company", "m", "12" * 15),
        ClusterChange(2, "ab" * 32, change="\ud800"),
        ClusterChange(2, "ab" * 32, change="x" * 501),
        ClusterChange(2, "ab" * 32, signers=("party0",) * 200_000),
    ],
    ids=["name", "id", "text", "long", "huge"],
)
def test_a_fact_that_could_not_be_read_breaks_nothing(tmp_path: Path, what: Fact) -> None:
    log = opened(tmp_path)
    log.append([Happened(now(), fact(1)), Happened(now(), what), Happened(now(), fact(2))])
    log.close()
    assert chained(entries(tmp_path))
    assert facts(tmp_path)[-4:] == [fact(1), Unsaid(kind_of(what)), fact(2), Stopped()]


def test_kinds_are_told_apart() -> None:
    assert len(set(KINDS)) == len(KINDS) > 12


@pytest.mark.parametrize("seed", range(20))
def test_a_crash_at_any_byte_leaves_a_chain_that_goes_on(tmp_path: Path, seed: int) -> None:
    """What was anchored is there; of what was not, whole entries stay, and a torn one is cut with a note."""
    draw = random.Random(seed)
    log = opened(tmp_path)
    put(log, 1, 2)
    durable = log.head.number
    # As a crash between the flush and the anchor, or in the middle of the write, leaves it.
    log.append([Happened(now(), fact(number)) for number in (3, 4, 5)])
    crash(log)
    (path,) = log_files(tmp_path / FOLDER)
    text = path.read_bytes()
    floor = sum(len(line) + 1 for line in text.split(b"\n")[:durable])
    cut = draw.randrange(floor, len(text) + 1)
    garbage = draw.choice([b"", b"\0" * 100, b"{}\n", draw.randbytes(50)])
    path.write_bytes(text[:cut] + garbage)
    log = opened(tmp_path)
    put(log, 6)
    log.close()
    found = entries(tmp_path)
    assert chained(found)
    whole = text[:cut].count(b"\n")
    notes = [what for what in facts(tmp_path) if isinstance(what, Cut)]
    rest = (text[:cut] + garbage)[len(b"".join(text.splitlines(keepends=True)[:whole])) :]
    assert [note.bytes for note in notes] == ([len(rest)] if rest else [])
    assert [e.what.clean for e in found if isinstance(e.what, Started)] == [True, False]
    assert not [what for what in facts(tmp_path) if isinstance(what, Broken)]
    assert [e.what for e in found[durable:whole]] == [fact(n) for n in (3, 4, 5)][: whole - durable]


class Crash(BaseException):
    """Not an error: nothing is done about it."""


def test_a_crash_at_any_step_of_writing_leaves_a_chain_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Appending, anchoring, beginning a file and deleting one, with the n-th call to the disk never returning."""
    monkeypatch.setattr(log_module, "MAX_FILE_BYTES", 1500)
    later = log_module.now
    left = 0

    def crashing(call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left:
                left -= 1
                if not left:
                    if call is real["pwrite"]:
                        # Half of it is written.
                        call(arguments[0], arguments[1][: len(arguments[1]) // 2], *arguments[2:])
                    raise Crash
            return call(*arguments, **named)

        return made

    real = {name: getattr(os, name) for name in ("pwrite", "fsync", "ftruncate", "open")}
    for name, call in real.items():
        monkeypatch.setattr(os, name, crashing(call))
    monkeypatch.setattr(Path, "unlink", crashing(Path.unlink))
    monkeypatch.setattr(log_module.Vault, "transaction", crashing(log_module.Vault.transaction))

    for steps in itertools.count(1):
        folder = tmp_path / str(steps)
        log = opened(folder)
        durable = 0
        left = steps
        try:
            for number in range(1, 7):
                put(log, number)
                durable = number
            monkeypatch.setattr(log_module, "now", lambda: later() + 2 * 86_400_000)
            log.prune(1)
            log.close()
            break
        except Crash:
            crash(log)
        finally:
            done, left = not left, 0
            monkeypatch.setattr(log_module, "now", later)
        assert done
        log = opened(folder)
        put(log, 100)
        log.close()
        found = entries(folder)
        assert chained(found)
        assert not [entry for entry in found if isinstance(entry.what, Broken)]
        # What was anchored is there, or deleted as agreed; and nothing is there twice.
        deleted = max((entry.what.number for entry in found if isinstance(entry.what, Deleted)), default=0)
        counts = [entry.what.count for entry in found if isinstance(entry.what, Refused)]
        assert counts == sorted(set(counts))
        assert deleted or set(range(1, durable + 1)) <= set(counts)
    assert steps > 40


def test_a_server_under_another_key_begins_another_file(tmp_path: Path) -> None:
    log = opened(tmp_path)
    put(log, 1)
    log.close()
    new = KeyPair.generate()
    rekey(tmp_path, KEYS["party0"], new)
    parties = [("party0", "h:2", new.public), ("party1", "h:3", KEYS["party1"].public)]
    cluster = Cluster.build("within", dealer=("h:1", KEYS["dealer"].public), parties=parties)
    log = AuditLog(tmp_path, new, cluster.member("party0"), cluster)
    put(log, 2)
    log.close()
    former, latter = log_files(tmp_path / FOLDER)
    assert read_line(next(lines(latter)).text).what == File("party0", new.public, "within")
    assert verified(tmp_path, (CLUSTER, cluster)).problems == []
    assert verified(former, (CLUSTER,)).problems == verified(latter, (cluster,)).problems == []
    assert verified(tmp_path, (cluster,)).problems


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-2],
        lambda text: [*text[:3], *text[4:]],
        lambda text: [*text[:3], text[3].replace(b"NotPermitted", b"ProgramError"), *text[4:]],
        lambda text: [*text[:3], text[4], text[3], *text[5:]],
        lambda text: [*text[:3], text[3], *text[3:]],
        lambda text: [],
        lambda text: [*text[:3], b"\0" * 200],
    ],
    ids=["truncated", "one missing", "edited", "swapped", "doubled", "emptied", "overwritten"],
)
def test_what_no_crash_does_is_said_and_its_numbers_are_not_given_again(tmp_path: Path, change: Any) -> None:
    log = opened(tmp_path)
    put(log, *range(6))
    log.close()
    (path,) = log_files(tmp_path / FOLDER)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    before = path.read_bytes()
    again = opened(tmp_path)
    again.close()
    # What is left stays as it was found.
    assert path.read_bytes() == before
    _, second = log_files(tmp_path / FOLDER)
    heading, note, *_ = (read_line(line.text) for line in lines(second))
    assert isinstance(note.what, Broken)
    assert (heading.number, heading.previous) == (note.what.number + 1, note.what.hash)
    assert (note.what.number, note.what.hash) == (log.head.number, log.head.hash)


def test_without_its_anchor_it_goes_on_and_says_so(tmp_path: Path) -> None:
    log = opened(tmp_path)
    put(log, 1)
    log.close()
    for path in tmp_path.glob("audit.sqlite*"):
        path.unlink()
    opened(tmp_path).close()
    assert chained(entries(tmp_path))
    (note,) = (what for what in facts(tmp_path) if isinstance(what, Broken))
    assert note.number == log.head.number
    # And where nothing in the files is ours, a new one begins.
    for path in (*tmp_path.glob("audit.sqlite*"), *log_files(tmp_path / FOLDER)[1:]):
        path.unlink()
    log_files(tmp_path / FOLDER)[0].write_bytes(b"nonsense\n")
    log = opened(tmp_path)
    log.close()
    assert any(isinstance(read_line(line.text).what, Broken) for line in lines(log_files(tmp_path / FOLDER)[1]))


def test_a_lost_file_is_noticed(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.close()
    log_files(tmp_path / FOLDER)[0].unlink()
    opened(tmp_path).close()
    assert [kind_of(what) for what in facts(tmp_path)] == ["file", "broken", "started", "stopped"]


def test_files_are_begun_anew_and_chained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "MAX_FILE_BYTES", 2000)
    log = opened(tmp_path)
    for number in range(12):
        put(log, number)
    log.close()
    opened(tmp_path).close()
    assert len(log_files(tmp_path / FOLDER)) > 3
    assert chained(entries(tmp_path))
    for path in log_files(tmp_path / FOLDER):
        assert isinstance(read_line(next(lines(path)).text).what, File)
    # So are old ones.
    monkeypatch.setattr(log_module, "MAX_FILE_BYTES", 1 << 30)
    monkeypatch.setattr(log_module, "MAX_FILE_AGE", -1)
    count = len(log_files(tmp_path / FOLDER))
    opened(tmp_path).close()
    assert len(log_files(tmp_path / FOLDER)) > count


@pytest.mark.parametrize("left", [0, 40])
def test_a_crash_while_a_file_is_begun(tmp_path: Path, left: int) -> None:
    log = opened(tmp_path)
    put(log, 1)
    crash(log)
    (tmp_path / FOLDER / "00000002.jsonl").write_bytes(b"{" * left)
    log = opened(tmp_path)
    put(log, 2)
    log.close()
    assert chained(entries(tmp_path))
    assert [what.bytes for what in facts(tmp_path) if isinstance(what, Cut)] == ([left] if left else [])


def test_old_files_go_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "MAX_FILE_BYTES", 1)
    log = opened(tmp_path)
    put(log, 1)
    log.prune(0)
    log.prune(1)
    before = entries(tmp_path)
    assert len(log_files(tmp_path / FOLDER)) == 2
    real = log_module.now
    monkeypatch.setattr(log_module, "now", lambda: real() + 2 * 86_400_000)
    log.prune(3)
    assert len(log_files(tmp_path / FOLDER)) == 2
    log.prune(1)
    found = entries(tmp_path)
    (note,) = (what for what in facts(tmp_path) if isinstance(what, Deleted))
    assert found[0].previous == note.hash
    assert found[0].number == note.number + 1 > 1
    assert chained(found)
    assert [entry for entry in before if entry.number > note.number] == found[: len(before) - note.number]
    log.close()


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    real, room = os.pwrite, 150

    def pwrite(descriptor: int, data: Any, at: int) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, bytes(data[:room]), at)
        room -= written
        return written

    monkeypatch.setattr(os, "pwrite", pwrite)
    head, batch = log.head, [Happened(now(), fact(1))]
    for _ in range(2):
        with pytest.raises(AuditFailed, match="cannot be written: No space left"):
            log.append(batch)
    assert log.head == head
    monkeypatch.setattr(os, "pwrite", real)
    log.append([*batch, Happened(now(), fact(2))])
    log.close()
    assert chained(entries(tmp_path))
    assert facts(tmp_path)[-3:] == [fact(1), fact(2), Stopped()]


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EROFS, ConfigurationError)])
def test_a_server_does_not_start_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[TesseraError]
) -> None:
    opened(tmp_path).close()

    def pwrite(*_: object) -> int:
        raise OSError(number, "why")

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(kind, match=r"audit log .* cannot be written"):
        opened(tmp_path)
    monkeypatch.undo()
    opened(tmp_path).close()
    assert chained(entries(tmp_path))


def test_an_old_copy_goes_on_behind_what_the_server_has_signed(tmp_path: Path) -> None:
    log = opened(tmp_path)
    head = log.head
    log.go_on_behind(head)
    log.go_on_behind(head._replace(log="0" * 16, number=100))
    assert log.head == head
    log.go_on_behind(head._replace(number=head.number + 10, hash="ab" * 32))
    log.close()
    found = entries(tmp_path)
    (note,) = (entry for entry in found if isinstance(entry.what, Broken))
    assert note.number == head.number + 12
    assert (found[-3].number, found[-3].previous) == (head.number + 11, "ab" * 32)


def test_who_else_may_use_it(tmp_path: Path) -> None:
    with contextlib.closing(opened(tmp_path)), pytest.raises(ConfigurationError, match="open in another process"):
        opened(tmp_path)
    with pytest.raises(ConfigurationError, match="belongs to another"):
        opened(tmp_path, "party1")
