"""``tessera party``: serve as one of the parties."""

from __future__ import annotations

import argparse

from mpc.errors import ConfigurationError
from parties.commands.engines import engine_arguments, workforce_of
from parties.commands.serving import serve, server_arguments
from parties.members.cluster import Cluster


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera party``."""
    parser.add_argument(
        "party", metavar="PARTY", help="which one: its name in the cluster file, or 0 for the first [[party]] there"
    )
    server_arguments(parser)
    engine_arguments(parser, "runs are computed", stock=True)


def run(options: argparse.Namespace) -> int:
    """Serves until it is asked to stop."""
    cluster = Cluster.load(options.cluster)
    for party in cluster.parties:
        if options.party in (str(party.index), party.name):
            return serve(options, cluster, party, workforce_of(options, cluster))
    listed = ", ".join(f"{party.index} ({party.name})" for party in cluster.parties)
    raise ConfigurationError(f"there is no party {options.party}: the cluster file lists {listed}")
