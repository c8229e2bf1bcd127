"""One client of a soak, as a process of its own: does what it is ordered to, and says what came of it.

Orders come on stdin, one JSON object a line, and each is answered by one on stdout::

    {"kind": "predict", "image": 3}     {"values": [...], "from_stock": true, "seconds": 0.2}
    {"kind": "stock", "count": 4}       {"seconds": 0.3}
                                        {"error": "PeerLost", "typed": true, "peer": "party0", "message": "...", ...}

One ``AsyncClient`` serves all of them, as a long-lived program would have it: nothing here repairs a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from mpc.errors import PeerError, TesseraError
from nn.derm import load_image, samples
from parties import AsyncClient, RemoteModel

MODEL = "derm"
LOW, HIGH = -1.0, 1.0

Order = Mapping[str, Any]
Answer = dict[str, Any]


class Caller:
    """Carries out orders with a client that connects at the first of them, and stays connected."""

    def __init__(self, cluster: str, key: str, stack: contextlib.AsyncExitStack) -> None:
        self._cluster, self._key, self._stack = cluster, key, stack
        self._images = [load_image(sample.path) for sample in samples()]
        self._client: AsyncClient | None = None
        self._model: RemoteModel | None = None

    async def answer(self, order: Order) -> Answer:
        """What came of it; never raises because an order failed."""
        started = time.perf_counter()
        try:
            answer = await self._carry_out(order)
        except TesseraError as error:
            answer = {"error": type(error).__name__, "typed": type(error) is not TesseraError, "message": str(error)}
            if isinstance(error, PeerError):
                answer["peer"] = error.peer
        except Exception as error:  # what must never happen, and is to be counted when it does
            logging.getLogger(__name__).exception("an error that is not one of Tessera's")
            answer = {"error": type(error).__name__, "typed": False, "message": str(error)}
        return {**answer, "seconds": time.perf_counter() - started}

    async def _carry_out(self, order: Order) -> Answer:
        client, model = await self._reached()
        image = self._images[order.get("image", 0)]
        result = model(client.share(image[np.newaxis], low=LOW, high=HIGH, name="image"))
        if order["kind"] == "stock":
            await client.stock(result, order["count"])
            return {}
        values = await client.reveal(result)
        report = client.last_run
        return {"values": values[0].tolist(), "from_stock": report is not None and report.from_stock}

    async def _reached(self) -> tuple[AsyncClient, RemoteModel]:
        if self._client is None:
            self._client = await self._stack.enter_async_context(AsyncClient(self._cluster, self._key))
        if self._model is None:
            self._model = await self._client.model(MODEL)
        return self._client, self._model


async def main(cluster: str, key: str) -> None:
    """Until stdin closes."""
    async with contextlib.AsyncExitStack() as stack:
        caller = Caller(cluster, key, stack)
        # In a thread: while nothing is asked of us, pings are still answered.
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await caller.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main(*sys.argv[1:]))
