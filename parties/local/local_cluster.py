"""``LocalCluster``: dealer and parties as processes of this machine, with fresh keys, gone when you are.

The processes are the ones that run on separate hosts, over the same sockets and with the same encryption; only the
addresses are loopback's.  A dealer beside its parties is for demonstrations, tests and benchmarks: whoever holds both
holds everything.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mpc.errors import PeerUnavailable, UsageError
from mpc.rings import compiling
from parties.host.dumps import no_core_files
from parties.host.processor import cores
from parties.local.ports import reserved_ports
from parties.members.cluster_file import Settings
from parties.servers.process import READY, tune
from parties.trial import TrialCluster
from parties.wire.socket_wires import SocketWires
from parties.wire.wires import Transport

GRACE = 3.0
"""Seconds that processes asked to end are given before they are killed."""

_SERVICE_MANAGER = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class LocalCluster(TrialCluster):
    """Context manager: starts a dealer and ``parties`` parties, and ends them whatever happens.

    Args:
        parties: how many, at least 2.
        security: ``"semi-honest"`` (the default, unless ``settings`` say otherwise) or ``"malicious"``.
        clients: names of the clients that are given keys; the first is the default client.
        settings: of the cluster file; by default the parties divide the processors that this process may use, and the
            dealer has as many as one of them: it works before they do.
        start_timeout: seconds until every process must listen.  The first start on a machine compiles kernels.
        verbose: the processes log everything that happens, not only what goes wrong; see ``log_tail``.
        log_format: ``"text"`` or ``"json"``.
        metrics: the processes answer scrapers; see ``metrics_urls``.
        observable: other processes of this user may look into them, as measurements do.
        devices: what servers compute on, by their names, as torch calls it; those without, on the processor.

    Raises, on entering:
        UsageError: fewer than two parties, or a security that does not exist.
        PeerUnavailable: a process did not start; the message ends with what it printed.
    """

    transport: Transport = SocketWires

    def __init__(
        self,
        parties: int = 2,
        *,
        security: str | None = None,
        clients: tuple[str, ...] = ("client",),
        settings: Settings | None = None,
        start_timeout: float = 120.0,
        verbose: bool = False,
        log_format: str = "text",
        metrics: bool = False,
        observable: bool = False,
        devices: Mapping[str, str] | None = None,
    ) -> None:
        settings = settings or Settings(threads=max(1, cores() // max(parties, 1)))
        super().__init__(parties, security=security, clients=clients, settings=settings)
        self._start_timeout = start_timeout
        self._verbose = verbose
        self._log_format = log_format
        self._metrics = metrics
        self._observable = observable
        self._devices = devices or {}
        self._folder: Path | None = None
        self._janitor: subprocess.Popen[bytes] | None = None
        self._ports = contextlib.ExitStack()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        """The server processes by name."""
        self.metrics_urls: dict[str, str] = {}
        """Where each server can be scraped, by name, if they were asked to let it."""

    def __repr__(self) -> str:
        state = f"{len(self.processes)} processes" if self.processes else "not running"
        return f"<LocalCluster of {self._parties} parties, {self._settings.security}, {state}>"

    @property
    def folder(self) -> Path:
        """Where the cluster file, keys and logs are; removed on leaving."""
        if self._folder is None:
            raise UsageError("the cluster is not running: use it in a `with` statement, or start() it")
        return self._folder

    @property
    def path(self) -> Path:
        """The cluster file."""
        return self.folder / "cluster.toml"

    def key_path(self, name: str) -> Path:
        """The key file of a member."""
        return self.folder / f"{name}.key"

    def _start(self) -> None:
        tune(0)
        no_core_files()
        # Here and once: the processes would otherwise compile the same kernels side by side.
        compiling.warm_up()
        self._folder = Path(tempfile.mkdtemp(prefix="tessera-"))
        self._janitor = _janitor(self._folder)
        names = self._server_names
        keys = self._gather(self._addresses(names))
        for name, pair in keys.items():
            pair.save(self.key_path(name))
        self.path.write_text(self.cluster.dumps(), encoding="utf-8")
        for name in names:
            self.start_process(name, wait=False)
        deadline = time.monotonic() + self._start_timeout
        for name in names:
            self._await_ready(name, deadline)

    def start_process(self, name: str, *, wait: bool = True) -> None:
        """Start one of the servers, or another one in its place."""
        if name in self.processes:
            self.processes[name].kill()
            _reap(self.processes[name])
        role = ["dealer"] if name == "dealer" else ["party", name.removeprefix("party")]
        command = [*self._program(name), *(["-v"] if self._verbose else []), *role]
        command += ["--cluster", str(self.path), "--key", str(self.key_path(name)), "--until-stdin-closes"]
        command += ["--log-format", self._log_format, *(["--metrics", "127.0.0.1:0"] if self._metrics else [])]
        command += ["--observable"] if self._observable else []
        command += ["--device", self._devices[name]] if name in self._devices else []
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=_environment()
            )
        if wait:
            self._await_ready(name, time.monotonic() + self._start_timeout)

    def _addresses(self, names: Sequence[str]) -> list[str]:
        """Where these servers will listen."""
        return [f"127.0.0.1:{port}" for port in self._ports.enter_context(reserved_ports(len(names)))]

    def _program(self, name: str) -> list[str]:
        """What is started for that server, before its arguments."""
        return [sys.executable, "-m", "parties.commands.command_line"]

    def _await_ready(self, name: str, deadline: float) -> None:
        process = self.processes[name]
        lines: list[bytes] = []
        expected = 2 if self._metrics else 1

        def read() -> None:
            if process.stdout is not None:
                lines.extend(process.stdout.readline() for _ in range(expected))

        # A thread reads: a pipe has no timeout.
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(max(0.0, deadline - time.monotonic()))
        if len(lines) < expected or lines[0].strip() != READY.encode():
            raise PeerUnavailable(name, f"did not start: {self.log_tail(name) or 'it printed nothing'}")
        if self._metrics:
            self.metrics_urls[name] = lines[1].decode().split()[-1]

    def data_path(self, name: str) -> Path:
        """The data folder of a server; it outlives the server's process, and is removed with the cluster's folder."""
        return self.folder / f"{name}.data"

    def log_tail(self, name: str, lines: int = 3) -> str:
        """The last lines of a process's log."""
        with contextlib.suppress(OSError):
            text = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip()
            return " / ".join(text.splitlines()[-lines:])
        return ""

    def close(self) -> None:
        """End every process and remove the folder.  Idempotent."""
        for process in self.processes.values():
            with contextlib.suppress(OSError):
                process.terminate()
                if process.stdin is not None:
                    # At once: nobody is left to wait for what is in progress.
                    process.stdin.close()
        deadline = time.monotonic() + GRACE
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()
            _reap(process)
        self.processes.clear()
        self._ports.close()
        self.client_keys.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._janitor is not None:
            _reap(self._janitor)
            self._janitor = None


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Close our ends of its pipes, and wait for its end."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()


def _janitor(folder: Path) -> subprocess.Popen[bytes]:
    """Removes the folder, which holds keys, once we have gone: even if we are killed.

    It waits for the end of its stdin, in a session of its own, where no Ctrl-C reaches it.
    """
    command = ["/bin/sh", "-c", 'read -r _; rm -rf -- "$1"', "tessera-janitor", str(folder)]
    return subprocess.Popen(  # noqa: S603 - a fixed command; the folder is an argument, not part of the script
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    """The parent's, with the folder these packages were found in first: the children must run the same code.

    Without what a service manager told the parent: that it is ready, and alive, is not for the children to say.
    """
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    inherited = {name: value for name, value in os.environ.items() if name not in _SERVICE_MANAGER}
    return {**inherited, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
