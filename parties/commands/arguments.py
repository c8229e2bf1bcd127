"""Arguments that many commands have."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from mpc.errors import ConfigurationError
from parties.members.cluster import Cluster
from parties.members.keys import KeyPair

KeyCommand = Callable[[Cluster, KeyPair, argparse.Namespace], Coroutine[Any, Any, int]]


def cluster_argument(parser: argparse.ArgumentParser) -> None:
    """The cluster file."""
    parser.add_argument(
        "--cluster", type=Path, default=Path("cluster.toml"), help="cluster file (default: %(default)s)"
    )


def client_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command of a client has."""
    cluster_argument(parser)
    parser.add_argument("--key", type=Path, help="your client key file (default: the one beside the cluster file)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds to wait for the servers (default: 10)")


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


def run_with_key(command: KeyCommand, options: argparse.Namespace) -> int:
    """``command`` with the cluster and the key that ``client_arguments`` say; its exit code."""
    cluster = Cluster.load(options.cluster)
    return asyncio.run(command(cluster, client_key(cluster, options), options))
