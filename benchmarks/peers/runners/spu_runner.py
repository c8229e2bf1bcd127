"""SecretFlow-SPU: SEMI2K, ABY3 or CHEETAH, each party a process over loopback (brpc).

Inputs are shared before and the result is put together after the clock runs.  What the protocol prepares, it prepares
inside the run: there is no offline phase to separate.  Messages are what was handed to the link, an upper bound of
rounds.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from serving import Crew, Lacks, claim_stdout, free_ports, peak_memory, serve

LINK = re.compile(r"Link details: total send bytes (\d+), recv bytes \d+, send actions (\d+)")
FIELD = "FM64"
MEMORY_PART = 0.8
"""Of the machine's memory, that all parties together may have."""


def runtime_config(protocol: str):
    from spu import libspu

    config = libspu.RuntimeConfig()
    config.protocol = getattr(libspu.ProtocolKind, protocol)
    config.field = getattr(libspu.FieldType, FIELD)
    config.enable_pphlo_profile = True  # the only way to its counters
    return config


class Runner:
    """Compiles, shares the inputs and puts the result together; the parties compute."""

    def __init__(self, protocol: str, parties: int) -> None:
        import spu

        self.folder = Path(tempfile.mkdtemp(prefix="spu-", dir=os.environ.get("TMPDIR")))
        ports = ",".join(map(str, free_ports(parties)))
        self.io = spu.Io(parties, runtime_config(protocol))
        self.crew = Crew(parties, lambda rank: ["--party", str(rank), "--protocol", protocol, "--ports", ports])

    def __call__(self, request: dict) -> dict:
        if request["do"] == "open":
            return self.open(request["case"], request["data"])
        return {"seconds": max(a["seconds"] for a in self.crew.ask(request))}

    def open(self, case: dict, data: str) -> dict:
        from spu import libspu
        from spu.utils import frontend

        with np.load(data) as arrays:
            arrays = dict(arrays)
        kind = case["kind"]
        function, inputs = cnn(case["activation"], arrays) if kind == "cnn" else operation(kind, arrays)
        inputs = [np.ascontiguousarray(a, np.float32) for a in inputs]
        names = [f"in{i}" for i in range(len(inputs))]
        secret = libspu.Visibility.VIS_SECRET
        program, _ = frontend.compile(
            frontend.Kind.JAX,
            function,
            inputs,
            {},
            names,
            [secret] * len(names),
            lambda outputs: ["out"] * len(outputs),
        )
        shares = [self.io.make_shares(a, secret) for a in inputs]
        for rank in range(len(self.crew)):
            dealt = [(s[rank].meta, list(s[rank].share_chunks)) for s in shares]
            (self.folder / f"party{rank}").write_bytes(pickle.dumps((program.code, names, dealt)))
        answers = self.crew.ask({"do": "open", "folder": str(self.folder)})
        outputs = []
        for rank in range(len(self.crew)):
            share = libspu.Share()
            share.meta, share.share_chunks = pickle.loads((self.folder / f"result{rank}").read_bytes())
            outputs.append(share)
        result = np.asarray(self.io.reconstruct(outputs), np.float64)
        return {
            "seconds": max(a["seconds"] for a in answers),
            "figures": {
                "online.bytes_per_party": max(a["sent"] for a in answers),
                "online.messages": max(a["messages"] for a in answers),
                "max_abs_error": float(np.abs(result - arrays["expected"]).max()),
                "peak_memory": max(a["memory"] for a in answers),
            },
            "version": version("spu"),
        }


class Party:
    """Answers requests; all parties get the same ones and run in step."""

    def __init__(self, rank: int, protocol: str, ports: list[int]) -> None:
        self.rank, self.protocol, self.ports = rank, protocol, ports

    def start(self, folder: str) -> None:
        """SPU logs to stdout: to a file from here on, which holds the counters."""
        self.log = Path(folder) / f"log{self.rank}"
        log = os.open(self.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # A protocol that wants more memory than there is dies alone, not with the machine.
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limit = int(MEMORY_PART * memory / len(self.ports))
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        import spu
        from spu import libspu

        description = libspu.link.Desc()
        description.recv_timeout_ms = 1_200_000
        for peer, port in enumerate(self.ports):
            description.add_party(f"p{peer}", f"127.0.0.1:{port}")
        self.link = libspu.link.create_brpc(description, self.rank)
        self.runtime = spu.Runtime(self.link, runtime_config(self.protocol))

    def __call__(self, request: dict) -> dict:
        from spu import libspu

        if request["do"] == "run":
            return {"seconds": self.timed()}
        folder = request["folder"]
        self.start(folder)
        code, self.names, dealt = pickle.loads((Path(folder) / f"party{self.rank}").read_bytes())
        self.program = libspu.Executable(name="case", input_names=self.names, output_names=["out"], code=code)
        for name, (meta, chunks) in zip(self.names, dealt):
            share = libspu.Share()
            share.meta, share.share_chunks = meta, chunks
            self.runtime.set_var(name, share)
        seconds = self.timed()
        result = self.runtime.get_var("out")
        (Path(folder) / f"result{self.rank}").write_bytes(pickle.dumps((result.meta, list(result.share_chunks))))
        counted = LINK.findall(self.log.read_text(errors="replace"))[-1]
        return {"seconds": seconds, "sent": int(counted[0]), "messages": int(counted[1]), "memory": peak_memory()}

    def timed(self) -> float:
        self.link.barrier()
        began = time.perf_counter()
        self.runtime.run(self.program)
        return time.perf_counter() - began


def operation(kind: str, arrays: dict):
    import jax

    functions = {
        "multiply": lambda x, y: x * y,
        "matmul": lambda x, y: x @ y,
        "sigmoid": jax.nn.sigmoid,
        "exp": jax.numpy.exp,
        "relu": jax.nn.relu,
        "max_pool2d": lambda x: jax.lax.reduce_window(x, -jax.numpy.inf, jax.lax.max, *[(1, 1, 2, 2)] * 2, "VALID"),
        "argmax": lambda x: jax.numpy.argmax(x, axis=1),
        "softmax": lambda x: jax.nn.softmax(x, axis=1),
    }
    if kind not in functions:
        raise Lacks(f"this runner has no {kind}")
    return functions[kind], [arrays[name] for name in ("x", "y") if name in arrays]


def cnn(activation: str, arrays: dict):
    """The network, channels last as SPU's convolution wants them; weights as secret as the images."""
    import jax.numpy as jnp
    from jax import lax, nn

    def convolved(x, w, b):
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + b

    def pooled(x):
        window = (1, 2, 2, 1)
        return lax.reduce_window(x, np.array(0, x.dtype), lax.add, window, window, "VALID") * 0.25

    active = {"sigmoid": nn.sigmoid, "relu": nn.relu}[activation]

    def forward(x, w1, b1, w2, b2, w3, b3, w4, b4):
        x = pooled(active(convolved(x, w1, b1)))
        x = pooled(active(convolved(x, w2, b2)))
        x = active(jnp.transpose(x, (0, 3, 1, 2)).reshape(x.shape[0], -1) @ w3 + b3)
        return x @ w4 + b4

    inputs = [arrays["x"].transpose(0, 2, 3, 1)]
    for name in ("conv1", "conv2"):
        inputs += [arrays[f"{name}.weight"].transpose(2, 3, 1, 0), arrays[f"{name}.bias"]]
    for name in ("fc1", "fc2"):
        inputs += [arrays[f"{name}.weight"].T, arrays[f"{name}.bias"]]
    return forward, inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", default="SEMI2K")
    parser.add_argument("--parties", type=int, default=2)
    parser.add_argument("--party", type=int, metavar="RANK", help="be one of the parties")
    parser.add_argument("--ports", default="")
    options = parser.parse_args()
    answers = claim_stdout()
    sys.setrecursionlimit(10_000)
    if options.party is None:
        serve(Runner(options.protocol, options.parties), answers)
    else:
        serve(Party(options.party, options.protocol, [int(p) for p in options.ports.split(",")]), answers)


if __name__ == "__main__":
    main()
