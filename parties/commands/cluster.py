"""``tessera cluster``: the cluster file in force, and the next one; a server's data folder under another key."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mpc.errors import ConfigurationError, UsageError
from parties.commands.arguments import client_arguments, client_key
from parties.members.cluster import Cluster, Member, Role
from parties.members.keys import KeyPair
from parties.members.succession import Step, Succession
from parties.operate.cluster.console import Console, Seen, consoling
from parties.operate.cluster.rekey import rekey
from parties.operate.cluster.report import Proposal, lines, offline, shown
from parties.operate.cluster.signed import read_signed, signed_path, write_signed

_AGAIN = 0.5
"""s between two looks for a proposal that is on its way."""

Action = Callable[[argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera cluster``."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION", dest="action")
    show = actions.add_parser("show", help="number, members and signers of the file in force; what is proposed")
    _common(show)
    show.add_argument("--out", type=Path, metavar="FILE", help="write the newest file here, and FILE.signed beside it")
    propose = actions.add_parser("propose", help="propose the next file, and say what it means; it is signed by you")
    _common(propose)
    propose.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="a whole cluster file; or change the former:"
    )
    for flag, what, meaning in (
        ("--add-client", "NAME=KEY", "a client comes"),
        ("--new-key", "NAME=KEY", "a member has another key"),
        ("--address", "NAME=HOST:PORT", "a server is at another address"),
        ("--remove", "NAME", "a client goes"),
    ):
        propose.add_argument(flag, action="append", default=[], metavar=what, help=f"{meaning}; may be repeated")
    propose.add_argument(
        "--out", type=Path, metavar="NEW", help="write the proposed file here, and NEW.signed beside it"
    )
    accept = actions.add_parser("accept", help="sign a proposed file; when all signers have, servers go by it")
    _common(accept)
    accept.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the file (default: as the servers have it)")
    accept.add_argument("--fingerprint", metavar="HEX", help="of the file that you mean; its first 8 digits will do")
    accept.add_argument(
        "--instead", action="store_true", help="although you have accepted another that others have, too"
    )
    for action in (propose, accept):
        action.add_argument(
            "--offline", action="store_true", help="ask no server: sign FILE.signed, to be carried around"
        )
    anew = actions.add_parser("rekey", help="seal a stopped server's data folder under its new key")
    anew.add_argument("--data", type=Path, required=True, help="the data folder")
    anew.add_argument("--old-key", type=Path, required=True, help="the key file that it is sealed under")
    anew.add_argument("--new-key", type=Path, required=True, help="the key file of the cluster file to come")
    anew.add_argument("--json", action="store_true", help="print one JSON object")


def _common(parser: argparse.ArgumentParser) -> None:
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    actions: dict[str, Action] = {"show": _show, "propose": _propose, "accept": _accept, "rekey": _rekey}
    return actions[options.action](options)


# -- show ------------------------------------------------------------------------------------------------------------


def _show(options: argparse.Namespace) -> int:
    cluster = Cluster.load(options.cluster)

    async def look() -> Seen:
        async with consoling(cluster, client_key(cluster, options), options.timeout) as console:
            return await console.look()

    seen = asyncio.run(look())
    if options.out is not None:
        succession = seen.succession
        write_signed(options.out, succession.steps[-1], succession.steps[1:], succession.knows)
    _print(options, shown(seen), lines(seen))
    return 0


# -- propose ---------------------------------------------------------------------------------------------------------


def _propose(options: argparse.Namespace) -> int:
    cluster = Cluster.load(options.cluster)
    keys = client_key(cluster, options)
    if options.offline and options.out is None:
        raise UsageError("without servers a proposal is a file: say where to write it with --out NEW")

    def step_of(succession: Succession) -> Step:
        return Step(succession.completed(_changed(succession.cluster, options)).dumps())

    step, proposal = _sign(cluster, keys, options, step_of)
    if options.out is not None:
        write_signed(options.out, step, [step])
    return _tell(options, proposal)


def _changed(former: Cluster, options: argparse.Namespace) -> Cluster:
    """The file that is proposed.  Raises ConfigurationError, UsageError."""
    changes = (options.add_client, options.new_key, options.address, options.remove)
    if (options.file is not None) == any(changes):
        raise UsageError("give a whole FILE, or what changes (--add-client, --new-key, --address, --remove)")
    if options.file is not None:
        return Cluster.load(options.file)
    members = {member.name: member for member in former.members}
    for name, key in map(_pair, options.new_key):
        members[name] = replace(_known(members, name), key=key)
    for name, address in map(_pair, options.address):
        if not _known(members, name).is_server:
            raise UsageError(f"{name} is a client, and has no address")
        members[name] = replace(members[name], address=address)
    for name in options.remove:
        if _known(members, name).role is not Role.CLIENT:
            raise UsageError(f"{name} is a {members[name].role}: propose a whole file without it")
        del members[name]
    for name, key in map(_pair, options.add_client):
        if name in members:
            raise UsageError(
                f"there is a {members[name].role} called {name} already: give it another key with --new-key"
            )
        members[name] = Member(name, Role.CLIENT, 0, None, key)
    return replace(
        former,
        number=former.number + 1,
        former=former.fingerprint,
        dealer=members[former.dealer.name],
        parties=tuple(members[party.name] for party in former.parties),
        clients=tuple(member for member in members.values() if member.role is Role.CLIENT),
        source="the cluster file that is proposed",
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"{text!r}: write NAME=VALUE, in single quotes")
    return name, value


def _known(members: dict[str, Member], name: str) -> Member:
    if name not in members:
        raise UsageError(f"there is no member called {name!r}: there are {', '.join(members)}")
    return members[name]


# -- accept ----------------------------------------------------------------------------------------------------------


def _accept(options: argparse.Namespace) -> int:
    cluster = Cluster.load(options.cluster)
    keys = client_key(cluster, options)
    given = None if options.file is None else read_signed(options.file)
    if given is None and options.offline:
        raise UsageError("without servers, say which FILE you accept")
    if given is not None:
        _check_meant(given.cluster(), options.fingerprint)

    def step_of(_: Succession) -> Step | None:
        return given

    step, proposal = _sign(cluster, keys, options, step_of)
    if options.file is not None and (options.offline or signed_path(options.file).exists()):
        write_signed(options.file, step, [step])
    return _tell(options, proposal)


def _check_meant(new: Cluster, fingerprint: str | None) -> None:
    if fingerprint is not None and (len(fingerprint) < 8 or not new.fingerprint.startswith(fingerprint)):
        raise UsageError(f"that is not the file you mean: its fingerprint is {new.fingerprint}, not {fingerprint}...")


def _chosen(seen: Seen, me: Member, options: argparse.Namespace) -> Step:
    """Of what the servers have, what the operator means.  Raises UsageError."""
    waiting = [step for step in seen.proposals if me.name not in step.signatures]
    meant = options.fingerprint or ""
    found = [step for step in waiting if step.cluster().fingerprint.startswith(meant)]
    if len(meant) >= 8 and len(found) == 1:
        return found[0]
    if not waiting:
        raise UsageError("nothing is proposed that you have not accepted")
    for step in waiting:
        print(*Proposal.of(step, seen).lines(), sep="\n", file=sys.stderr)
    if len(waiting) == 1 and not meant and sys.stdin.isatty():
        print("accept it? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return waiting[0]
    raise UsageError("say which you accept, with --fingerprint and its first 8 digits or more")


# -- both ------------------------------------------------------------------------------------------------------------


def _sign(
    cluster: Cluster, keys: KeyPair, options: argparse.Namespace, step_of: Callable[[Succession], Step | None]
) -> tuple[Step, Proposal]:
    """The file with our signature, told to the servers unless ``--offline``; and how it stands from then on."""

    def signed(step: Step, seen: Seen) -> Step:
        me = seen.cluster.by_key(keys.public)
        if me is None or me.name not in {signer.name for signer in seen.cluster.signers}:
            raise ConfigurationError(
                f"the key is of {'nobody' if me is None else me.name}: the next file has to be signed by"
                f" {', '.join(signer.name for signer in seen.cluster.signers)}"
            )
        Proposal.of(step, seen)
        return step.signed(me.name, keys)

    if options.offline:
        seen = offline(Succession.begin(cluster))
        step = step_of(seen.succession)
        if step is None:
            raise UsageError("without servers, say which FILE you mean")
        step = signed(step, seen)
        return step, Proposal.of(step, seen)

    async def go() -> tuple[Step, Proposal]:
        async with consoling(cluster, keys, options.timeout) as console:
            seen = await _look(console, options)
            step = step_of(seen.succession) or _chosen(seen, console.me, options)
            _check_not_another(step, seen, console, options)
            step = signed(step, seen)
            missing = await console.send(step)
            accepted = {signer.name for signer in seen.cluster.signers} - missing
            proposal = Proposal.of(step, seen)
            return step, replace(proposal, accepted=tuple(sorted(accepted)), missing=tuple(sorted(missing)))

    return asyncio.run(go())


async def _look(console: Console, options: argparse.Namespace) -> Seen:
    """What there is; once what the operator means has come to its server, which may take a moment."""
    meant, until = getattr(options, "fingerprint", None), time.monotonic() + options.timeout
    while True:
        seen = await console.look()
        there = any(step.cluster().fingerprint.startswith(meant or "") for step in seen.proposals)
        if meant is None or options.file is not None or there or time.monotonic() > until:
            return seen
        await asyncio.sleep(_AGAIN)


def _check_not_another(step: Step, seen: Seen, console: Console, options: argparse.Namespace) -> None:
    """A signature is not taken back: whoever has signed two files leaves it to the others which one counts."""
    new, me = step.cluster(), console.me.name
    for other in seen.proposals:
        if me in other.signatures and len(other.signatures) > 1 and other.cluster().fingerprint != new.fingerprint:
            if getattr(options, "instead", False):
                continue
            raise UsageError(
                f"you have accepted another file {new.number}, {other.cluster().fingerprint[:16]}, and so have others:"
                " the first that all have accepted counts, and a signature is not taken back. Agree with the others,"
                " then `tessera cluster accept --instead`"
            )


def _tell(options: argparse.Namespace, proposal: Proposal) -> int:
    said = list(proposal.lines())
    if not proposal.missing:
        said.append("all have accepted it: " + ("it may be put in force" if options.offline else "it is in force"))
    else:
        said.append(
            f"each of them now runs: tessera cluster accept --fingerprint {proposal.new.fingerprint[:16]} --key ..."
        )
    _print(options, {**proposal.to_dict(), "in_force": not proposal.missing and not options.offline}, said)
    return 0


# -- rekey -----------------------------------------------------------------------------------------------------------


def _rekey(options: argparse.Namespace) -> int:
    old, new = (KeyPair.load(path) for path in (options.old_key, options.new_key))
    files = rekey(options.data, old, new)
    said = [f"{options.data}: {len(files)} files open with the new key, and no more with the old one"]
    _print(options, {"data": str(options.data), "files": files}, said)
    return 0


def _print(options: argparse.Namespace, found: dict[str, object], said: Sequence[str] | object) -> None:
    if options.json:
        print(json.dumps(found))
    else:
        print(*said, sep="\n")  # type: ignore[misc]
