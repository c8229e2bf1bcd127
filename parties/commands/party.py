"""``tessera party``: serve as one of the parties."""

from __future__ import annotations

import argparse

from mpc.errors import ConfigurationError
from parties.cluster import Cluster
from parties.commands.serving import serve, server_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera party``."""
    parser.add_argument("index", type=int, help="which one: 0 for the first [[party]] of the cluster file")
    server_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Serves until it is asked to stop."""
    cluster, index = Cluster.load(options.cluster), options.index
    if not 0 <= index < len(cluster.parties):
        raise ConfigurationError(f"there is no party {index}: the cluster file lists {len(cluster.parties)}, from 0")
    return serve(options, cluster, cluster.parties[index])
