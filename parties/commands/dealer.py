"""``tessera dealer``: serve as the dealer."""

from __future__ import annotations

import argparse

from parties.commands.engines import engine_arguments, workforce_of
from parties.commands.serving import serve, server_arguments
from parties.members.cluster import Cluster


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera dealer``."""
    server_arguments(parser)
    engine_arguments(parser, "dealing is done")


def run(options: argparse.Namespace) -> int:
    """Serves until it is asked to stop."""
    cluster = Cluster.load(options.cluster)
    return serve(options, cluster, cluster.dealer, workforce_of(options, cluster))
