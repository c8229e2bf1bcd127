"""Hosts on one Linux machine: network namespaces, each with an address and one wire whose other end is ours.

A host has no network but its wire: a TUN device, whose packets come out of a file descriptor here and go in there
(``benchmarks.network.switch`` carries them).  Packets keep their offloads, so that TCP hands over up to 64 KiB at a
time, as it does to a real network card, and still cuts segments for an MTU of 1500.

Needs the right to make network namespaces: root, or user namespaces that anyone may make (``enter_user_namespace``).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from mpc.errors import UsageError

T = TypeVar("T")

SUBNET = "10.99.0"
MTU = 1500
DEVICE = "wire"

# Of linux/sched.h and linux/if_tun.h.
_CLONE_NEWNET = 0x4000_0000
_TUNSETIFF, _TUNSETOFFLOAD = 0x4004_54CA, 0x4004_54D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_OFFLOAD_CHECKSUM, _OFFLOAD_TSO4 = 0x01, 0x02
_INSIDE = "TESSERA_USER_NAMESPACE"

_libc = ctypes.CDLL(None, use_errno=True)


class Host:
    """A network namespace with an address; ``number``, 1 to 254, ends the address.  A context manager.

    Raises UsageError when this machine does not let us have one.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.address = f"{SUBNET}.{number}"
        self._closing = contextlib.ExitStack()
        self.namespace = -1
        """File descriptor of the namespace, which lives as long as it is open or a process is inside."""
        self.wire = -1
        """File descriptor of the wire: packets that the host sends are read from it, and those for it written."""
        try:
            self._made()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Host {self.address}>"

    def _made(self) -> None:
        def make() -> tuple[int, int]:
            # A thread may leave the process's namespace by itself, and what it opens stays of the new one.
            _called("unshare", _CLONE_NEWNET)
            return _namespace(), _wire(self.address)

        try:
            self.namespace, self.wire = _in_thread(make)
        except OSError as error:
            raise UsageError(
                f"a network namespace with a TUN device cannot be made ({error.strerror}): this needs Linux with"
                " /dev/net/tun, and root or unprivileged user namespaces"
            ) from error
        for descriptor in (self.namespace, self.wire):
            self._closing.callback(os.close, descriptor)

    def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises, called in a thread that is on this host; its sockets are the host's."""

        def inside() -> T:
            with self.entered():
                return work()

        return _in_thread(inside)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Meanwhile the calling thread is on this host, and so are threads that it starts, for all their life."""
        before = _namespace()
        try:
            _called("setns", self.namespace, _CLONE_NEWNET)
            yield
        finally:
            _called("setns", before, _CLONE_NEWNET)
            os.close(before)

    def command(self) -> list[str]:
        """What to put before a command, so that it runs on this host, as a process of the same number."""
        path = shutil.which("nsenter")
        if path is None:
            raise UsageError("there is no nsenter: install util-linux")
        return [path, f"--net=/proc/{os.getpid()}/fd/{self.namespace}"]

    def close(self) -> None:
        """Idempotent.  The host itself is gone with the last process on it."""
        self._closing.close()


def enter_user_namespace(arguments: Sequence[str]) -> None:
    """Unless we are root: begin again, with these ``arguments`` to Python, where we are root among ourselves.

    Does not return where it has to begin again.  Raises UsageError where there are no user namespaces.
    """
    if os.geteuid() == 0:
        return
    unshare = shutil.which("unshare")
    if unshare is None or os.environ.get(_INSIDE):
        raise UsageError("network namespaces need root, or util-linux's unshare and unprivileged user namespaces")
    os.environ[_INSIDE] = "1"
    sys.stdout.flush()
    command = [unshare, "--user", "--map-root-user", "--net", sys.executable, *arguments]
    os.execv(unshare, command)  # noqa: S606 - our own interpreter


def _in_thread(work: Callable[[], T]) -> T:
    """Call ``work`` in a thread that ends with it."""
    done: list[T] = []
    failed: list[BaseException] = []

    def call() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again where it belongs
            failed.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def _namespace() -> int:
    """The calling thread's."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _wire(address: str) -> int:
    """The TUN device of the namespace that the calling thread is in."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(device, _TUNSETIFF, request)
        fcntl.ioctl(device, _TUNSETOFFLOAD, _OFFLOAD_CHECKSUM | _OFFLOAD_TSO4)
        _configure(address)
    except BaseException:
        os.close(device)
        raise
    return device


def _configure(address: str) -> None:
    try:
        from pyroute2 import IPRoute
    except ImportError as error:
        raise UsageError(f"emulated hosts need pyroute2 ({error}): install tessera-mpc[bench]") from error
    with IPRoute() as routes:
        (index,) = routes.link_lookup(ifname=DEVICE)
        routes.addr("add", index=index, address=address, prefixlen=24)
        routes.link("set", index=index, mtu=MTU, state="up")
        routes.link("set", index=routes.link_lookup(ifname="lo")[0], state="up")


def _called(name: str, *arguments: int) -> None:
    """A function of the C library that returns 0, or sets errno.  (Python has these two from 3.12 on.)"""
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, os.strerror(number))
