"""Commands that are a client: what they are given is the client that their arguments say."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from parties.client.async_client import AsyncClient
from parties.commands.arguments import client_key
from parties.commands.objective import chosen_objective
from parties.members.cluster import Cluster

ClientCommand = Callable[[AsyncClient, argparse.Namespace], Coroutine[Any, Any, int]]


def run_as_client(command: ClientCommand, options: argparse.Namespace) -> int:
    """``command`` with the client that ``client_arguments`` say, which it enters when all is right; its exit code."""

    async def main() -> int:
        cluster = Cluster.load(options.cluster)
        key, objective = client_key(cluster, options), chosen_objective(options, cluster)
        client = AsyncClient(cluster, key, connect_timeout=options.timeout, objective=objective)
        return await command(client, options)

    return asyncio.run(main())
