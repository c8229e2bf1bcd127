"""A member that greets everybody, answers pings, and otherwise only listens: ``python peer.py CLUSTER NAME KEY``."""

import asyncio
import sys

from parties.members.cluster import Cluster
from parties.members.keys import KeyPair
from parties.wire.transport import Endpoint


async def main(file: str, name: str, key: str) -> None:
    cluster = Cluster.load(file)
    me = cluster.member(name)
    async with Endpoint(cluster, me, KeyPair.load(key), bind=me.is_server) as endpoint:
        print("up", flush=True)
        while True:
            await endpoint.receive()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
