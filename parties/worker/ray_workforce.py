"""Workers as actors of Ray (https://docs.ray.io): which machine each is on, and that there is another when one is lost.

Ray starts processes, where there is room for them, and says when they end.  Nothing of a run goes through it: its
object store and its calls are neither encrypted nor authenticated as Tessera's links are, and what arrives there is
unpickled.
So all that passes over it is where the head is, and public keys; a worker's link to its head has keys that none of it
gives away (`parties.wire.direct`), and other members never speak with it.  Whoever can reach
Ray's ports can run what he likes as this party (docs/security.md): they belong in a network of the party's own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from typing import Any

from mpc.errors import ConfigurationError, PeerLost, TesseraError
from mpc.rings import compiling
from mpc.rings.devices import memory_on, rings_on
from parties.host.dumps import opaque
from parties.servers.process import raise_descriptor_limit, tune
from parties.worker.worker import Worker

log = logging.getLogger(__name__)

LOCAL = "local"
"""The address of a Ray that is started for this party, on its own machine, and ends with it."""


class _Process:
    """In an actor's process."""

    def __init__(
        self, address: str, head: bytes, door: bytes, ports: Sequence[int], threads: int, device: str, stock: str
    ) -> None:
        opaque()
        tune(threads)
        raise_descriptor_limit()
        compiling.warm_up()
        rings, self._memory = rings_on(device) if device else None, memory_on(device)
        self._worker = Worker(_ray().util.get_node_ip_address(), ports, rings, self._memory, stock)
        serving = threading.Thread(target=self._serve, args=(address, head, door), name="tessera worker", daemon=True)
        serving.start()

    def key(self) -> bytes:
        return self._worker.key.public

    def _serve(self, address: str, head: bytes, door: bytes) -> None:
        try:
            asyncio.run(self._worker.serve(address, head, door))
        except TesseraError as error:
            log.warning("%s", error)
        finally:
            if self._memory is not None:
                self._memory.wipe_all()
            # Ray does not see a thread end; and without its head it is of no use.
            os._exit(0)


class RayWorkforce:
    """A `parties.servers.crew.Workforce` on Ray.  Made outside of an event loop: it blocks until Ray is there.

    Args:
        wanted: how many workers.
        address: of Ray's head, ``host:port`` or ``auto`` on one of its nodes; or `LOCAL`.
        cpus: processors that each is given, and the threads that it computes with.
        ports: that workers listen at, each at the first one that is free on its machine; 0: any.
        device: what torch is to compute on, if not NumPy on the processor.
        stock: the folder on each worker's machine in which it keeps what is dealt ahead of time.

    Raises ConfigurationError where Ray is not installed, or cannot be reached.
    """

    def __init__(
        self,
        wanted: int,
        address: str = LOCAL,
        *,
        cpus: int = 1,
        ports: Sequence[int] = (0,),
        device: str = "",
        stock: str = "",
    ) -> None:
        self._ray = ray = _ray()
        self.wanted = wanted
        options: dict[str, Any] = {"address": address, "include_dashboard": False} if address == LOCAL else {}
        if address == LOCAL:
            # As many as are asked for, whether or not there are as many processors.
            options |= {"num_cpus": max(os.cpu_count() or 1, wanted * cpus), "object_store_memory": 100 << 20}
        else:
            options |= {"address": address}
        try:
            ray.init(ignore_reinit_error=True, logging_level=logging.WARNING, log_to_driver=False, **options)
        except Exception as error:  # whatever Ray raises
            raise ConfigurationError(f"Ray at {address} cannot be used: {error}") from error
        self.host = str(ray.util.get_node_ip_address())
        self._actor = ray.remote(_Process)
        self._arguments = tuple(ports), cpus, device, stock
        self._options = {"num_cpus": cpus, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        self._actors: dict[int, Any] = {}

    async def start(self, number: int, address: str, head: bytes, door: bytes) -> bytes:
        self._actors[number] = actor = self._actor.options(**self._options).remote(
            address, head, door, *self._arguments
        )
        try:
            return bytes(await asyncio.wrap_future(actor.key.remote().future()))
        except self._ray.exceptions.RayError as error:
            raise PeerLost(f"worker {number}", f"did not start ({str(error).splitlines()[0]})") from None

    async def end(self, number: int) -> None:
        actor = self._actors.pop(number, None)
        if actor is not None:
            self._ray.kill(actor)

    def close(self) -> None:
        """Ends all workers, and this party's part in Ray."""
        self._ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigurationError("--engine ray needs Ray: pip install 'tessera-mpc[cluster]'") from None
    return ray
