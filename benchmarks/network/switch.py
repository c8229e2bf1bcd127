"""The switch between hosts: a process that carries packets from wire to wire, late, slowly, or not at all.

It stands in for ``tc netem`` where the kernel has none.  Every host has one link: what it sends leaves one packet
after the other at the link's rate, is on its way for the delay, and arrives one after the other at the rate of the
other host's link.  A path's delay is the longer one of its two ends.  Nothing is dropped for want of room: the
senders' windows bound what waits.  The program is run by ``benchmarks.network.emulation``, and reads commands from
stdin, one JSON object a line::

    {"link": [HOST, DELAY, RATE, LOSS, TWICE]}    seconds one way; bytes per second, null for no limit; probabilities
    {"cut": [HOST, HOST]}                  from now on nothing passes between the two
    {"heal": [HOST, HOST]}
    {"report": true}                       what passed since the last report: packets, bytes, dropped

Every command is answered by one line on stdout, in JSON; all but the last by null.
It imports nothing but the standard library, and ends with its stdin.
"""

from __future__ import annotations

import argparse
import ctypes
import heapq
import itertools
import json
import os
import random
import select
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

# Of linux/virtio_net.h, which precedes every packet: flags, kind of segmentation, length of the headers, size of a
# segment's payload, and what concerns checksums.
VIRTIO = 10
_BIGGEST = VIRTIO + (1 << 16)
_AT_ONCE = 16
"""Packets read from one wire before the others get a turn."""
_SPIN = 150e-6
"""The last part of a wait, in seconds, is spent looking at the clock: to be woken takes about as long."""
_PR_SET_TIMERSLACK = 29
_LATE = 1e-3
"""Seconds by which a packet's double comes after it."""


@dataclass
class Port:
    """A host's end of the switch."""

    wire: int
    delay: float = 0.0
    """Seconds one way."""
    rate: float | None = None
    """Bytes per second, each way."""
    loss: float = 0.0
    """The probability that a packet does not arrive."""
    twice: float = 0.0
    """The probability that it arrives a second time, a moment later and so behind others."""
    sent_until: float = 0.0
    """When the last byte sent so far has left."""
    received_until: float = 0.0
    """When the last byte that has begun to arrive will be there."""

    def transfer(self, size: int) -> float:
        """Seconds that a packet takes at the link's rate."""
        return 0.0 if self.rate is None else size / self.rate


@dataclass
class Counts:
    """What has passed since the last report."""

    packets: int = 0
    bytes: int = 0
    dropped: int = 0
    doubled: int = 0


class Switch:
    """Packets between ``wires``, the hosts' file descriptors by number."""

    def __init__(self, wires: dict[int, int], seed: int) -> None:
        self._ports = {host: Port(wire) for host, wire in wires.items()}
        self._hosts = {wire: host for host, wire in wires.items()}
        self._cut: set[frozenset[int]] = set()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        # Which packets are lost is no secret, and is the same in every run.
        self._random = random.Random(seed)  # noqa: S311
        self._counts = Counts()

    def command(self, words: dict[str, Any]) -> dict[str, Any] | None:
        """Do what was asked; the answer, if one is due."""
        if "link" in words:
            host, delay, rate, loss, twice = words["link"]
            port = self._ports[host]
            port.delay, port.rate, port.loss, port.twice = delay, rate, loss, twice
        elif "cut" in words:
            self._cut.add(frozenset(words["cut"]))
        elif "heal" in words:
            self._cut.discard(frozenset(words["heal"]))
        else:
            counts, self._counts = self._counts, Counts()
            return asdict(counts)
        return None

    def serve(self, commands: int, answers: int) -> None:
        """Until ``commands`` ends."""
        _precise()
        wires = list(self._hosts)
        unread = b""
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic() - _SPIN) if self._due else None
            ready = select.select([commands, *wires], [], [], wait)[0]
            for descriptor in ready:
                self._deliver()
                if descriptor != commands:
                    self._read(descriptor)
                    continue
                text = os.read(commands, 1 << 16)
                if not text:
                    return
                *lines, unread = (unread + text).split(b"\n")
                for line in lines:
                    answer = self.command(json.loads(line))
                    os.write(answers, json.dumps(answer).encode() + b"\n")
            self._deliver()

    def _read(self, wire: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                packet = os.read(wire, _BIGGEST)
            except BlockingIOError:
                return
            self._take(self._hosts[wire], packet)

    def _take(self, source: int, packet: bytes) -> None:
        """A packet has been sent: it leaves behind those before it, and its first byte arrives after the delay."""
        target = packet[VIRTIO + 19] if packet[VIRTIO] >> 4 == 4 else 0
        sender, receiver = self._ports[source], self._ports.get(target)
        if receiver is None:
            return
        loss = 1 - (1 - sender.loss) * (1 - receiver.loss)
        if frozenset((source, target)) in self._cut or (loss and self._random.random() < loss):
            self._counts.dropped += 1
            return
        size = _size(packet)
        self._counts.packets += 1
        self._counts.bytes += size
        begins = max(time.monotonic(), sender.sent_until)
        sender.sent_until = ends = begins + sender.transfer(size)
        delay = max(sender.delay, receiver.delay)
        self._at(begins + delay, lambda: self._arrive(receiver, packet, size, begins + delay, ends + delay))
        twice = max(sender.twice, receiver.twice)
        if twice and self._random.random() < twice:
            self._counts.doubled += 1
            late = _LATE + delay
            self._at(begins + late, lambda: self._arrive(receiver, packet, size, begins + late, ends + late))

    def _arrive(self, receiver: Port, packet: bytes, size: int, begins: float, ends: float) -> None:
        """The first byte is there.  The last one comes at the receiver's rate, and not before it has been sent."""
        begins = max(begins, receiver.received_until)
        receiver.received_until = complete = max(begins + receiver.transfer(size), ends)

        def deliver() -> None:
            try:
                os.write(receiver.wire, packet)
            except OSError:  # the host is gone, or its queue is full: the packet is lost, as on any wire
                self._counts.dropped += 1

        self._at(complete, deliver)

    def _at(self, due: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (due, next(self._order), act))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()


def _size(packet: bytes) -> int:
    """Bytes on a network: those of a packet that the card would cut into segments have headers each."""
    segment = int.from_bytes(packet[4:6], sys.byteorder)
    length = len(packet) - VIRTIO
    if packet[1] == 0 or segment == 0:
        return length
    headers = int.from_bytes(packet[2:4], sys.byteorder)
    return length + headers * (-(-(length - headers) // segment) - 1)


def _precise() -> None:
    """Let waits end when they should: by default Linux lets them last 50 microseconds longer."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)


def main() -> None:
    """``HOST:DESCRIPTOR ...``"""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("wires", nargs="+")
    options = parser.parse_args()
    wires = {int(host): int(descriptor) for host, _, descriptor in (wire.partition(":") for wire in options.wires)}
    Switch(wires, options.seed).serve(sys.stdin.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    main()
