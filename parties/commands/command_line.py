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
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mpc.errors import ConfigurationError, TesseraError, UsageError
from parties import logs
from parties.cluster import Cluster, Member, is_name
from parties.keys import KeyPair
from parties.operate.metrics.serving import parse_address
from parties.wire.transport import package_version

INTERRUPTED = 130
Adder = Callable[[Any], None]
Choose = Callable[[Cluster, argparse.Namespace], Member]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the value is the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(arguments).parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format=logs.TEXT)
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
    if not is_name(options.name):
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


# -- init ------------------------------------------------------------------------------------------------------------


def _add_init(commands: Any) -> None:
    from parties.commands.init.dialogue import add_arguments, init

    command = commands.add_parser(
        "init", help="write a cluster file, and keys, for several hosts; asks what is missing"
    )
    add_arguments(command)
    command.set_defaults(run=init)


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
    command.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        help="let Prometheus scrape here; whoever can connect can read it (default: not)",
    )
    command.add_argument(
        "--log-format", choices=logs.FORMATS, default="text", help="json: one object a line (default: text)"
    )
    command.add_argument(
        "--grace", type=_seconds, default=10.0, metavar="SECONDS",
        help="asked to stop (SIGTERM), give runs in progress so long to end, then fail them (default: 10)",
    )  # fmt: skip


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400")
    return value


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
    metrics = None if options.metrics is None else parse_address(options.metrics)
    logs.configure(options.log_format, member.name)
    # Imported here: other commands need no kernels.
    from parties.servers.process import run_server

    folder = options.data or _key_path(options, member).parent / f"{member.name}.data"
    run_server(
        cluster, member, keys, folder,
        until_stdin_closes=options.until_stdin_closes, grace=options.grace, metrics=metrics,
    )  # fmt: skip
    return 0


# -- check -----------------------------------------------------------------------------------------------------------


def _add_check(commands: Any) -> None:
    command = commands.add_parser(
        "check", help="every link in both directions, keys, versions, clocks and data folders: what is wrong?"
    )
    _client_arguments(command)
    command.add_argument("--no-bandwidth", action="store_true", help="send nothing big (else up to 8 MiB per link)")
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
    from rich.console import Console

    from parties.commands.check import check
    from parties.operate.check.report import stdout_console

    cluster = Cluster.load(options.cluster)
    keys = client_key(cluster, options)
    with Console(stderr=True).status("checking") as status:
        report = await check(cluster, keys, options.timeout, bandwidth=not options.no_bandwidth, progress=status.update)
    if options.json:
        print(json.dumps(report.to_dict()))
    else:
        report.print(stdout_console())
    return report.exit_code


# -- status ----------------------------------------------------------------------------------------------------------


def _add_status(commands: Any) -> None:
    command = commands.add_parser(
        "status", help="what each server holds and does: models, preprocessing in stock, runs, peers"
    )
    _client_arguments(command)
    command.add_argument("--json", action="store_true", help="print one JSON object; with --watch, one a line")
    command.add_argument("--watch", type=float, metavar="SECONDS", help="again and again, until interrupted")
    command.set_defaults(run=lambda options: asyncio.run(_status(options)))


async def _status(options: argparse.Namespace) -> int:
    from parties.commands.status import show

    cluster = Cluster.load(options.cluster)
    return await show(cluster, client_key(cluster, options), options)


# -- predict ---------------------------------------------------------------------------------------------------------


def _add_predict(commands: Any) -> None:
    command = commands.add_parser("predict", help="a model's answer to a photograph that only you can see")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="JPEG or PNG; metadata is dropped")
    command.add_argument("--model", help="name of a model stored on the parties (default: the only one there)")
    _client_arguments(command)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=lambda options: asyncio.run(_predict(options)))


async def _predict(options: argparse.Namespace) -> int:
    from parties.commands.predict import predict

    cluster = Cluster.load(options.cluster)
    return await predict(cluster, client_key(cluster, options), options)


# -- clinic ----------------------------------------------------------------------------------------------------------


def _add_clinic(commands: Any) -> None:
    command = commands.add_parser("clinic", help="a web page on this computer: photograph in, shares out, answer back")
    command.add_argument("--model", help="name of a model stored on the parties (default: the only one there)")
    command.add_argument(
        "--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="where to serve it (default: %(default)s)"
    )
    command.add_argument(
        "--name", action="append", default=[], help="host name that browsers use, behind a proxy; may be repeated"
    )
    command.add_argument("--open", action="store_true", help="open it in a browser")
    _client_arguments(command)
    command.set_defaults(run=lambda options: asyncio.run(_clinic(options)))


async def _clinic(options: argparse.Namespace) -> int:
    from parties.clinic.command import clinic

    cluster = Cluster.load(options.cluster)
    return await clinic(cluster, client_key(cluster, options), options)


# -- deal ------------------------------------------------------------------------------------------------------------


def _add_deal(commands: Any) -> None:
    command = commands.add_parser("deal", help="have preprocessing dealt ahead of time, for later predictions")
    command.add_argument("--model", help="name of a model stored on the parties (default: the only one there)")
    command.add_argument("--count", type=int, required=True, help="for how many predictions")
    command.add_argument("--batch", type=int, default=1, help="images per prediction (default: 1)")
    command.add_argument(
        "--low-water", type=int, default=0, metavar="N", help="from now on, deal up to COUNT again when fewer are left"
    )
    _client_arguments(command)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=lambda options: asyncio.run(_deal(options)))


async def _deal(options: argparse.Namespace) -> int:
    from parties.commands.deal import deal

    cluster = Cluster.load(options.cluster)
    return await deal(cluster, client_key(cluster, options), options)


# -- models ----------------------------------------------------------------------------------------------------------


def _add_upload(commands: Any) -> None:
    command = commands.add_parser("upload", help="store a model, or data, on the parties, as shares")
    command.add_argument("name", metavar="NAME", help="what to call it")
    command.add_argument("--model", help="which of the models that installed packages bring (default: the only one)")
    command.add_argument(
        "--weights", type=Path, metavar="FILE", help="its weights, in safetensors (default: those that ship)"
    )
    command.add_argument("--data", type=Path, metavar="FILE.npz", help="instead of a model: arrays, a data set")
    command.add_argument(
        "--range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="with --data: where all values lie, in public"
    )
    command.add_argument("--if-missing", action="store_true", help="leave one of that name that we may use as it is")
    _client_arguments(command)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=lambda options: asyncio.run(_upload(options)))


async def _upload(options: argparse.Namespace) -> int:
    from parties.commands.stored import upload

    cluster = Cluster.load(options.cluster)
    return await upload(cluster, client_key(cluster, options), options)


def _add_models(commands: Any) -> None:
    command = commands.add_parser("models", help="list the models stored on the parties")
    _client_arguments(command)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=lambda options: asyncio.run(_models(options)))


async def _models(options: argparse.Namespace) -> int:
    from parties.commands.stored import models

    cluster = Cluster.load(options.cluster)
    return await models(cluster, client_key(cluster, options), options)


def _add_allow(commands: Any) -> None:
    command = commands.add_parser("allow", help="say who may run what on a model of yours (at first nobody but you)")
    command.add_argument("name", metavar="NAME", help="the model's")
    command.add_argument("client", metavar="CLIENT", help="as in the cluster file; '*' for every client")
    command.add_argument(
        "--program", action="append", dest="programs", metavar="P",
        help="predict (the default), a program's digest, or any, which lets the weights be revealed; may be repeated",
    )  # fmt: skip
    command.add_argument("--nothing", action="store_true", help="take back what was allowed")
    _client_arguments(command)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=lambda options: asyncio.run(_allow(options)))


async def _allow(options: argparse.Namespace) -> int:
    from parties.commands.stored import allow

    cluster = Cluster.load(options.cluster)
    return await allow(cluster, client_key(cluster, options), options)


def _add_rm(commands: Any) -> None:
    command = commands.add_parser("rm", help="remove models of yours from dealer and parties, for good")
    command.add_argument("names", nargs="+", metavar="NAME", help="as `tessera models` lists it")
    _client_arguments(command)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=lambda options: asyncio.run(_remove(options)))


async def _remove(options: argparse.Namespace) -> int:
    from parties.commands.stored import remove

    cluster = Cluster.load(options.cluster)
    return await remove(cluster, client_key(cluster, options), options)


_BUILT_IN: dict[str, Adder] = {
    "keygen": _add_keygen,
    "init": _add_init,
    "dealer": _add_dealer,
    "party": _add_party,
    "check": _add_check,
    "status": _add_status,
    "predict": _add_predict,
    "clinic": _add_clinic,
    "deal": _add_deal,
    "upload": _add_upload,
    "models": _add_models,
    "allow": _add_allow,
    "rm": _add_rm,
}

if __name__ == "__main__":
    script()
