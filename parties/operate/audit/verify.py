"""Is an audit log what its server wrote, and all of it?  Works on a copy, with nothing but the cluster file.

Every entry has to follow the one before (number and hash), in its one form, signed under the key that the cluster file
lists for the server that the file's first entry names.  What is *not* seen in a log alone is that its end is missing,
or that its server has written all of it anew: `parties.operate.audit.compare` holds it against the heads that the other
servers keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parties.members.cluster import Cluster, Member
from parties.operate.audit.entry import Entry, Head, after, read_line
from parties.operate.audit.facts import Broken, Cut, Deleted, File
from parties.operate.audit.files import Line, files_of, lines
from parties.operate.audit.words import moment, sentence

MOST = 100
"""Problems that are told."""


@dataclass
class Walk:
    """Iterate over it once: entries that are signed as they should be, with where the log stands at each.

    ``clusters``: cluster files of all the time that the log is about.  What is wrong is in ``problems`` afterwards, and
    what is only worth knowing in ``notes``.  Raises ConfigurationError for files that are not there.
    """

    place: Path
    clusters: Sequence[Cluster]
    member: str = ""
    """Whose log it is, once that is known."""
    count: int = 0
    first: Entry | None = None
    last: Entry | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _head: Head | None = None
    _signer: Member | None = None
    _deleted: set[tuple[int, str]] = field(default_factory=set)

    def __iter__(self) -> Iterator[tuple[Entry, Head]]:
        paths = files_of(self.place)
        for path in paths:
            for number, line in enumerate(lines(path), 1):
                entry = self._read(line, f"line {number} of {path.name}", last=path == paths[-1])
                if entry is None:
                    continue
                if isinstance(entry.what, File):
                    self._begin(entry.what, path)
                if number == 1 and not isinstance(entry.what, File):
                    self._wrong(f"{path.name} does not begin with whose log it is")
                if self._signer is None or not entry.signed_by(self._signer):
                    self._wrong(f"entry {entry.number} in {path.name} is not signed by {self.member or 'its server'}")
                head = after(entry, line.text)
                self._follow(entry, head)
                yield entry, head
        if self.first is None:
            self._wrong("there is no entry in it")
        elif self.first.number > 1 and (self.first.number - 1, self.first.previous) not in self._deleted:
            before = f"entries 1 to {self.first.number - 1} are not here"
            if self.place.is_file():
                self.notes.append(f"{before}: this is one file of a log")
            else:
                self._wrong(f"{before}, and none says that they were deleted")

    def _read(self, line: Line, where: str, *, last: bool) -> Entry | None:
        try:
            entry = read_line(line.text)
        except ValueError as error:
            if last and not line.whole:
                self.notes.append(f"{where} is not whole: the server is writing, or has crashed")
            else:
                self._wrong(f"{where} is {error}")
            return None
        return entry

    def _begin(self, heading: File, path: Path) -> None:
        if self.member and heading.member != self.member:
            self._wrong(f"{path.name} is of {heading.member}'s log, not of {self.member}'s")
        self.member = heading.member
        members = (member for cluster in self.clusters for member in cluster.servers)
        self._signer = next((m for m in members if (m.name, m.key) == (heading.member, heading.key)), None)
        if self._signer is None:
            self._wrong(
                f"{path.name} is signed under a key that no cluster file given lists for {heading.member}: give the"
                " file of that time too, with one more --cluster"
            )

    def _follow(self, entry: Entry, head: Head) -> None:
        former, self._head = self._head, head
        self.count += 1
        self.first = self.first or entry
        self.last = entry
        what = entry.what
        if isinstance(what, Deleted):
            self._deleted.add((what.number, what.hash))
        if isinstance(what, Broken):
            self._wrong(f"entry {entry.number}, of {moment(entry.when)}: {sentence(what)}")
        if isinstance(what, Cut):
            self.notes.append(f"entry {entry.number}, of {moment(entry.when)}: {sentence(what)}")
        if former is None:
            return
        if entry.log != former.log:
            self._wrong(f"after entry {former.number} another log begins")
        elif entry.number > former.number + 1:
            self._wrong(f"entries {former.number + 1} to {entry.number - 1} are missing")
        elif entry.number <= former.number:
            self._wrong(f"entry {entry.number} comes after entry {former.number}")
        elif entry.previous != former.hash:
            self._wrong(f"entry {former.number} is not the one that entry {entry.number} was written after")

    def _wrong(self, problem: str) -> None:
        if len(self.problems) < MOST:
            self.problems.append(problem)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "log": str(self.place),
            "member": self.member,
            "entries": self.count,
            "first": None if self.first is None else _place(self.first),
            "last": None if self.last is None else _place(self.last),
            "problems": self.problems,
            "notes": self.notes,
        }


def _place(entry: Entry) -> dict[str, Any]:
    return {"number": entry.number, "time": moment(entry.when)}


def verified(place: Path, clusters: Iterable[Cluster]) -> Walk:
    """The whole of it, walked."""
    walk = Walk(place, tuple(clusters))
    for _ in walk:
        pass
    return walk
