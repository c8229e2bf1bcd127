"""``tessera audit``: what servers' audit logs say, whether they are whole, and where two of them differ.

``show``, ``verify``, ``compare`` and ``evidence`` work on files: on the server's own host, or on copies, anywhere and
with no server running.  ``mine`` asks the servers, as a client.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from mpc.errors import AuditError
from parties.client.async_client import AsyncClient
from parties.commands import audit_evidence
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client
from parties.members.cluster import Cluster
from parties.operate.audit.compare import Book, compare, held_against
from parties.operate.audit.entry import Entry, read_line
from parties.operate.audit.facts import KINDS, kind_of
from parties.operate.audit.files import files_of, lines
from parties.operate.audit.verify import Walk
from parties.operate.audit.words import moment, sentence

_SPAN = re.compile(r"(\d{1,6})([smhd])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LOG = "a server's data folder, its audit folder or a copy of that, or one file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera audit``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="what it says; nothing is verified")
    show.add_argument("log", type=Path, nargs="?", metavar="LOG", help=_LOG)
    show.add_argument("--data", type=Path, help="the same as LOG")
    show.add_argument("--client", help="what that client did, or what is about it")
    show.add_argument("--owner", help="what is about secrets of that owner's")
    show.add_argument("--secret", metavar="NAME", help="what is about a secret of that name")
    show.add_argument("--kind", choices=KINDS, action="append", metavar="KIND", help=f"one of {', '.join(KINDS)}")
    show.add_argument(
        "--since", type=_since, metavar="WHEN", help="a time in UTC as 2026-01-31T09:00, or an age as 90m, 12h, 7d"
    )
    verify = actions.add_parser("verify", help="is it what its server wrote, and all of it?")
    verify.add_argument("log", type=Path, metavar="LOG", help=_LOG)
    verify.add_argument(
        "--with", dest="others", type=Path, action="append", default=[], metavar="LOG",
        help="another server's, which keeps how far this one had come",
    )  # fmt: skip
    both = actions.add_parser("compare", help="where do two servers' logs differ, and may they?")
    both.add_argument("log", type=Path, metavar="LOG", help=_LOG)
    both.add_argument("other", type=Path, metavar="OTHER", help="the other server's")
    evidence = actions.add_parser("evidence", help="what proves that a member has not kept to the protocol, verified")
    audit_evidence.add_arguments(evidence)
    for action in (verify, both, evidence):
        action.add_argument(
            "--cluster", type=Path, action="append",
            help="cluster file (default: cluster.toml); again for those of earlier times, with other keys",
        )  # fmt: skip
    mine = actions.add_parser("mine", help="ask every server: my runs, and who has run what on my models and data")
    client_arguments(mine)
    mine.add_argument("--since", type=_since, metavar="WHEN", default=0, help="as of `tessera audit show`")
    for action in (show, verify, both, evidence, mine):
        action.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code: that of `AuditError` when something is wrong."""
    if options.action == "mine":
        return run_as_client(_mine, options)
    if options.action == "evidence":
        return audit_evidence.run(options, _clusters(options))
    actions = {"show": _show, "verify": _verify, "compare": _compare}
    return actions[options.action](options)


def _since(text: str) -> int:
    """ms since 1970."""
    span = _SPAN.match(text)
    if span:
        when = datetime.now(UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})
    else:
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a time nor an age") from None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return int(when.timestamp() * 1000)


# -- show ------------------------------------------------------------------------------------------------------------


def _show(options: argparse.Namespace) -> int:
    place: Path = options.log or options.data or Path()
    entries = (entry for entry in _entries(place) if _wanted(entry, options))
    if options.json:
        shown = [msgspec.to_builtins(entry) | {"time": moment(entry.when)} for entry in entries]
        print(json.dumps({"log": str(place), "entries": shown}))
    else:
        for entry in entries:
            print(f"{moment(entry.when)}  {entry.number:>7}  {kind_of(entry.what):<12}  {sentence(entry.what)}")
    return 0


def _entries(place: Path) -> Iterator[Entry]:
    """What is none is left out: that is for ``verify`` to say."""
    for line in itertools.chain.from_iterable(map(lines, files_of(place))):
        try:
            yield read_line(line.text)
        except ValueError:
            continue


def _wanted(entry: Entry, options: argparse.Namespace) -> bool:
    fact = entry.what
    return (
        (options.since is None or entry.when >= options.since)
        and (options.kind is None or kind_of(fact) in options.kind)
        and (options.client is None or options.client in fact.clients)
        and (options.owner is None or any(owner == options.owner for owner, _ in fact.secrets))
        and (options.secret is None or any(name == options.secret for _, name in fact.secrets))
    )


async def _mine(client: AsyncClient, options: argparse.Namespace) -> int:
    async with client:
        entries = await client.audit(datetime.fromtimestamp(options.since / 1000, UTC))
    if options.json:
        print(json.dumps({"client": client.member.name, "entries": [entry.to_dict() for entry in entries]}))
    else:
        for entry in entries:
            print(entry)
    return 0


# -- verify, compare -------------------------------------------------------------------------------------------------


def _clusters(options: argparse.Namespace) -> tuple[Cluster, ...]:
    return tuple(map(Cluster.load, options.cluster or [Path("cluster.toml")]))


def _verify(options: argparse.Namespace) -> int:
    clusters = _clusters(options)
    book = Book(Walk(options.log, clusters))
    others = [Book(Walk(place, clusters)) for place in options.others]
    found = [difference for other in others for difference in held_against(book, other)]
    walks = [book.walk, *(other.walk for other in others)]
    wrong = any(walk.problems for walk in walks) or bool(found)
    if options.json:
        _print_json(
            "the log is not what its server wrote" if wrong else "",
            {"logs": [w.to_dict() for w in walks], "held_against": [d.to_dict() for d in found]},
        )
        return _exit_code(wrong)
    for walk in walks:
        _print_walk(walk)
    for difference in found:
        print(f"FAIL  {moment(difference.when)}  {difference.text}")
    if not others:
        print(
            "what is missing at its end, or was written anew by its server, only the others' logs show:"
            " --with, or `tessera audit compare`"
        )
    return _exit_code(wrong)


def _compare(options: argparse.Namespace) -> int:
    clusters = _clusters(options)
    walks = [Walk(options.log, clusters), Walk(options.other, clusters)]
    found = compare(*walks)
    wrong = any(walk.problems for walk in walks) or any(difference.contradiction for difference in found)
    if options.json:
        _print_json(
            "the logs do not go together" if wrong else "",
            {"logs": [w.to_dict() for w in walks], "differences": [d.to_dict() for d in found]},
        )
        return _exit_code(wrong)
    for walk in walks:
        _print_walk(walk)
    for difference in found:
        kind = "CONTRADICTION" if difference.contradiction else "difference   "
        print(f"{kind}  {moment(difference.when)}  {difference.text}")
    print("they contradict each other" if wrong else "they go together")
    return _exit_code(wrong)


def _print_walk(walk: Walk) -> None:
    state = "FAIL" if walk.problems else "OK  "
    span = "" if walk.first is None or walk.last is None else f", {moment(walk.first.when)} to {moment(walk.last.when)}"
    print(f"{state}  {walk.place}: {walk.count} entries of {walk.member or 'nobody'}{span}")
    for problem in walk.problems:
        print(f"      {problem}")
    for note in walk.notes:
        print(f"      note: {note}")


def _print_json(wrong: str, found: dict[str, Any]) -> None:
    """``wrong``: what is; or nothing."""
    failure = AuditError(wrong).to_dict() if wrong else {}
    print(json.dumps({**failure, "ok": not wrong, "exit_code": _exit_code(bool(wrong)), **found}))


def _exit_code(wrong: bool) -> int:
    return AuditError.exit_code if wrong else 0
