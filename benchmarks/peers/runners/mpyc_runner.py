"""MPyC: three parties (with two its threshold is 0, and a share is the secret itself) as processes over loopback.

Inputs are shared before the clock runs; revealing the result is part of the run, unless it stays (``held``).
Randomness is made inside the run by pseudorandom secret sharing: there is no offline phase to separate.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import version

import numpy as np
from serving import Crew, Lacks, OverLimit, claim_stdout, free_ports, peak_memory, serve

BITS, FRACTION = 32, 16
"""Of its secure fixed-point numbers."""
TRIAL = 64
"""Such a part of the elements, or of the columns of a product, is computed first, to see how long all would take."""


class Runner:
    def __init__(self, parties: int) -> None:
        addresses = [argument for port in free_ports(parties) for argument in ("-P", f"127.0.0.1:{port}")]
        self.crew = Crew(parties, lambda rank: ["--party", *addresses, "-I", str(rank), "--no-log"])

    def __call__(self, request: dict) -> dict:
        if request["do"] == "open":
            operation(request["case"])
            trial = max(a["seconds"] for a in self.crew.ask({**request, "part": TRIAL}))
            if trial * TRIAL > request["limit"]:
                raise OverLimit(
                    f"over the limit of {request['limit']:.0f} s: a part of 1/{TRIAL} of it takes {trial:.1f} s"
                )
        answers = self.crew.ask(request)
        answer = {}
        if "seconds" in answers[0]:
            answer["seconds"] = max(a["seconds"] for a in answers)
        if "figures" in answers[0]:
            every = [a["figures"] for a in answers]
            answer["figures"] = {name: max(f[name] for f in every) for name in every[0]}
            answer["version"] = version("mpyc")
        return answer


def operation(case: dict):
    kind = case["kind"]
    if kind in ("sigmoid", "exp") or (kind == "cnn" and case["activation"] == "sigmoid"):
        what = "sigmoid, which the network needs," if kind == "cnn" else kind
        raise Lacks(f"it has no {what} of secret fixed-point numbers")
    functions = {"multiply": lambda x, y: x * y, "matmul": lambda x, y: x @ y}
    if kind not in functions:
        raise Lacks(f"this runner has no {'network' if kind == 'cnn' else kind}")
    return functions[kind]


class Party:
    """Answers requests; all parties get the same ones and run in step."""

    def __init__(self) -> None:
        from mpyc import asyncoro
        from mpyc.runtime import mpc

        self.mpc, self.messages = mpc, 0
        send = asyncoro.MessageExchanger.send

        def counted(exchanger, *arguments):
            self.messages += 1
            return send(exchanger, *arguments)

        asyncoro.MessageExchanger.send = counted
        mpc.run(mpc.start())

    def __call__(self, request: dict) -> dict:
        if request["do"] == "open":
            return self.mpc.run(self.open(request["case"], request["data"], request.get("part", 1)))
        return {"seconds": self.mpc.run(self.timed())[0]}

    async def open(self, case: dict, data: str, part: int) -> dict:
        mpc = self.mpc
        with np.load(data) as arrays:
            arrays = dict(arrays)
        for name in ("x", "y", "expected") if case["kind"] == "multiply" else ("y", "expected"):
            if name in arrays:
                arrays[name] = arrays[name][..., : arrays[name].shape[-1] // part]
        numbers = mpc.SecFxp(BITS, FRACTION)
        self.function, self.held = operation(case), case["held"]
        began = time.perf_counter()
        self.inputs = [
            mpc.input(numbers.array(arrays[name], integral=False), senders=0) for name in ("x", "y") if name in arrays
        ]
        for shared in self.inputs:
            await mpc.gather(shared)
        input_seconds = time.perf_counter() - began
        await mpc.transfer(None)
        sent, messages = self.sent(), self.messages
        seconds, result = await self.timed()
        sent, messages = self.sent() - sent, self.messages - messages
        result = await mpc.output(result) if self.held else result
        error = float(np.abs(np.asarray(result, np.float64) - arrays["expected"]).max())
        figures = {
            "online.bytes_per_party": sent,
            "online.messages": messages,
            "max_abs_error": error,
            "input.seconds": input_seconds,
            "peak_memory": peak_memory(),
        }
        return {"figures": figures, "seconds": seconds}

    def sent(self) -> int:
        return sum(p.protocol.nbytes_sent for p in self.mpc.parties if p.pid != self.mpc.pid)

    async def timed(self):
        await self.mpc.transfer(None)  # all parties start together
        began = time.perf_counter()
        result = self.function(*self.inputs)
        if self.held:
            await self.mpc.gather(result)
        else:
            result = await self.mpc.output(result)
        return time.perf_counter() - began, result


def main() -> None:
    answers = claim_stdout()
    sys.setrecursionlimit(10_000)
    if sys.argv[1:2] == ["--party"]:
        del sys.argv[1]  # the rest are MPyC's own arguments
        serve(Party(), answers)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parties", type=int, default=3)
    serve(Runner(parser.parse_args().parties), answers)


if __name__ == "__main__":
    main()
