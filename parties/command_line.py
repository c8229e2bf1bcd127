"""The command ``tessera``: what is here, and ``demo`` and ``bench``, which plug in from ``benchmarks``.

A command of another package is an entry point in the group ``tessera.commands``: a function that is given the
subparsers' factory, adds its own arguments, and sets ``run``, a function from parsed arguments to an exit code.

Every expected failure ends in one sentence on stderr and the error's own exit code (``mpc.errors``).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mpc.errors import ConfigurationError, TesseraError, UsageError
from parties.cluster import Cluster, Member
from parties.keys import KeyPair
from parties.transport import package_version

INTERRUPTED = 130
Adder = Callable[[Any], None]
Choose = Callable[[Cluster, argparse.Namespace], Member]

MEMBER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
"""As in cluster files."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the value is the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(arguments).parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if options.verbose:
        # Ours alone: compilers and image readers say a great deal at this level.
        logging.getLogger("parties").setLevel(logging.DEBUG)
    try:
        return int(options.run(options))
    except TesseraError as error:
        print(f"tessera: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; keep Python from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def script() -> None:
    """The console script."""
    sys.exit(main())


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tessera", description="Secure multi-party computation on secret-shared tensors."
    )
    parser.add_argument("--version", action="version", version=f"tessera {package_version()}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what happens to stderr")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in _BUILT_IN.values():
        add(commands)
    # A server starts without loading other people's commands, and in spite of a broken one.
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    if chosen not in _BUILT_IN:
        for entry in importlib.metadata.entry_points(group="tessera.commands"):
            adder: Adder = entry.load()
            adder(commands)
    return parser


# -- keygen ----------------------------------------------------------------------------------------------------------


def _add_keygen(commands: Any) -> None:
    command = commands.add_parser("keygen", help="make an identity: a secret key file, and a public key to hand out")
    command.add_argument("name", help="what to call it; the file is NAME.key")
    command.add_argument("--out", type=Path, default=Path(), help="folder for the key file (default: this one)")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=_keygen)


def _keygen(options: argparse.Namespace) -> int:
    if not MEMBER_NAME.match(options.name):
        raise UsageError(f"{options.name!r} is not a name: use up to 64 letters, digits, '-', '_' and '.'")
    pair = KeyPair.generate()
    path = options.out / f"{options.name}.key"
    pair.save(path)
    if options.json:
        print(json.dumps({"name": options.name, "file": str(path), "public": pair.public}))
    else:
        print(f"secret key: {path} (keep it on this host; nobody else may read it)")
        print(f"public key: {pair.public}")
    return 0


# -- servers ---------------------------------------------------------------------------------------------------------


def _cluster_argument(command: Any) -> None:
    command.add_argument(
        "--cluster", type=Path, default=Path("cluster.toml"), help="cluster file (default: %(default)s)"
    )


def _server_arguments(command: Any) -> None:
    _cluster_argument(command)
    command.add_argument("--key", type=Path, help="its key file (default: NAME.key beside the cluster file)")
    command.add_argument("--data", type=Path, help="its data folder (default: NAME.data beside the key file)")
    command.add_argument("--until-stdin-closes", action="store_true", help="end when stdin does (for launchers)")


def _key_path(options: argparse.Namespace, member: Member) -> Path:
    path: Path = options.key or options.cluster.parent / f"{member.name}.key"
    return path


def _add_dealer(commands: Any) -> None:
    command = commands.add_parser("dealer", help="serve as the dealer: correlated randomness, never data")
    _server_arguments(command)
    command.set_defaults(run=lambda options: _serve(options, lambda cluster, _: cluster.dealer))


def _add_party(commands: Any) -> None:
    command = commands.add_parser("party", help="serve as one of the parties")
    command.add_argument("index", type=int, help="which one: 0 for the first [[party]] of the cluster file")
    _server_arguments(command)

    command.set_defaults(run=lambda options: _serve(options, _chosen_party))


def _chosen_party(cluster: Cluster, options: argparse.Namespace) -> Member:
    index: int = options.index
    if not 0 <= index < len(cluster.parties):
        raise ConfigurationError(f"there is no party {index}: the cluster file lists {len(cluster.parties)}, from 0")
    return cluster.parties[index]


def _serve(options: argparse.Namespace, choose: Choose) -> int:
    cluster = Cluster.load(options.cluster)
    member = choose(cluster, options)
    keys = KeyPair.load(_key_path(options, member))
    # Imported here: other commands need no kernels.
    from parties.process import run_server

    folder = options.data or _key_path(options, member).parent / f"{member.name}.data"
    run_server(cluster, member, keys, folder, until_stdin_closes=options.until_stdin_closes)
    return 0


# -- check -----------------------------------------------------------------------------------------------------------


def _add_check(commands: Any) -> None:
    command = commands.add_parser("check", help="can every server be reached, with the right keys and versions?")
    _client_arguments(command)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=lambda options: asyncio.run(_check(options)))


def _client_arguments(command: Any) -> None:
    _cluster_argument(command)
    command.add_argument("--key", type=Path, help="your client key file (default: the one beside the cluster file)")
    command.add_argument("--timeout", type=float, default=10.0, help="seconds to wait for the servers (default: 10)")


def client_key(cluster: Cluster, options: argparse.Namespace) -> KeyPair:
    """The key given, or the only client key file beside the cluster file."""
    if options.key is not None:
        return KeyPair.load(options.key)
    beside = [options.cluster.parent / f"{member.name}.key" for member in cluster.clients]
    found = [path for path in beside if path.exists()]
    if len(found) != 1:
        which = "no client's key file is" if not found else f"{len(found)} clients' key files are"
        raise ConfigurationError(f"{which} beside {options.cluster}: give yours with --key")
    return KeyPair.load(found[0])


async def _check(options: argparse.Namespace) -> int:
    from parties.check import check

    cluster = Cluster.load(options.cluster)
    rows = await check(cluster, client_key(cluster, options), options.timeout)
    if options.json:
        servers = [row.to_dict() for row in rows]
        print(json.dumps({"cluster": cluster.name, "ok": all(row.ok for row in rows), "servers": servers}))
    else:
        for row in rows:
            print(row)
    return next((row.exit_code for row in rows if not row.ok), 0)


# -- predict ---------------------------------------------------------------------------------------------------------


def _add_predict(commands: Any) -> None:
    command = commands.add_parser("predict", help="classify a photograph that only you can see")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="JPEG or PNG; metadata is dropped")
    command.add_argument("--model", default="derm", help="name of a model stored on the parties (default: derm)")
    _client_arguments(command)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=lambda options: asyncio.run(_predict(options)))


async def _predict(options: argparse.Namespace) -> int:
    from parties.predict import predict

    cluster = Cluster.load(options.cluster)
    return await predict(cluster, client_key(cluster, options), options)


# -- deal ------------------------------------------------------------------------------------------------------------


def _add_deal(commands: Any) -> None:
    command = commands.add_parser("deal", help="have preprocessing dealt ahead of time, for later predictions")
    command.add_argument("--model", default="derm", help="name of a model stored on the parties (default: derm)")
    command.add_argument("--count", type=int, required=True, help="for how many predictions")
    command.add_argument("--batch", type=int, default=1, help="images per prediction (default: 1)")
    command.add_argument(
        "--low-water", type=int, default=0, metavar="N", help="from now on, deal up to COUNT again when fewer are left"
    )
    _client_arguments(command)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=lambda options: asyncio.run(_deal(options)))


async def _deal(options: argparse.Namespace) -> int:
    from parties.deal import deal

    cluster = Cluster.load(options.cluster)
    return await deal(cluster, client_key(cluster, options), options)


_BUILT_IN: dict[str, Adder] = {
    "keygen": _add_keygen,
    "dealer": _add_dealer,
    "party": _add_party,
    "check": _add_check,
    "predict": _add_predict,
    "deal": _add_deal,
}

if __name__ == "__main__":
    script()
