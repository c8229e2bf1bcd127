"""CrypTen: two or more parties, and a dealer of its own with ``--dealer``, as processes over loopback (gloo).

Online is what runs after the triples are there: they come from CrypTen's own cache, filled before the clock starts.
With its trusted first party, party 0 makes them; with ``--dealer`` a separate process does (its "trusted third party").
Inputs and weights are shared beforehand; revealing the result is part of the online phase, unless it stays (``held``).
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import warnings

import numpy as np
from serving import Crew, Lacks, claim_stdout, free_ports, peak_memory, serve, tcp_bytes

SETTLE = 0.1
"""Seconds until what was sent before has been counted at both ends."""


# ---------------------------------------------------------------- the runner


class Runner:
    def __init__(self, parties: int, dealer: bool) -> None:
        rendezvous = {
            "WORLD_SIZE": str(parties),
            "RENDEZVOUS": f"tcp://127.0.0.1:{free_ports(1)[0]}",
            "DISTRIBUTED_BACKEND": "gloo",
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
        }
        provider = "TTP" if dealer else "TFP"
        if dealer:
            # Rank `parties` is CrypTen's dealer: it answers no requests, and is not waited for.
            self.dealer = Crew(1, lambda _: ["--party", provider], lambda _: {**rendezvous, "RANK": str(parties)})
        self.crew = Crew(parties, lambda _: ["--party", provider], lambda rank: {**rendezvous, "RANK": str(rank)})

    def __call__(self, request: dict) -> dict:
        answers = self.crew.ask(request)
        answer = {}
        for key in ("seconds", "offline_seconds"):
            if key in answers[0]:
                answer[key] = max(a[key] for a in answers)
        if "figures" in answers[0]:
            every = [a["figures"] for a in answers]
            answer["figures"] = {name: max(f[name] for f in every) for name in every[0]}
            answer["version"] = answers[0]["version"]
        return answer


# ------------------------------------------------------------------- a party


def import_crypten():
    """CrypTen 0.4.1 on a current torch; none of its files is changed.

    It imports torch.onnx._internal.registration, which has moved, and expects torch.onnx.export to be the exporter that
    works on TorchScript, which is no longer the default.
    """
    warnings.simplefilter("ignore")
    import torch.onnx

    old = "torch.onnx._internal.registration"
    try:
        importlib.import_module(old)
    except ImportError:
        sys.modules[old] = importlib.import_module("torch.onnx._internal.torchscript_exporter.registration")
    export = torch.onnx.export

    def export_torchscript(*arguments, **options):
        return export(*arguments, **{"dynamo": False, **options})

    torch.onnx.export = export_torchscript
    import crypten

    return crypten


class Party:
    """Answers requests; all parties get the same ones and run in step."""

    def __init__(self, provider: str) -> None:
        import torch

        torch.set_num_threads(1)
        self.ct = import_crypten()
        self.ct.config.cfg.mpc.provider = provider
        self.ct.init()
        import crypten.communicator as communicator
        import torch.distributed as distributed

        self.link = communicator.get()
        self.barrier = lambda: distributed.barrier(group=self.link.main_group)
        self.evaluate = None
        self.held = False

    def __call__(self, request: dict) -> dict:
        if request["do"] == "open":
            return self.open(request["case"], request["data"])
        offline = self.deal()
        seconds, _ = self.timed()
        return {"seconds": seconds, "offline_seconds": offline}

    @property
    def provider(self):
        return self.ct.mpc.get_default_provider()

    def open(self, case: dict, data: str) -> dict:
        with np.load(data) as arrays:
            arrays = dict(arrays)
        self.held = case["held"]
        began = time.perf_counter()
        kind = case["kind"]
        if kind == "train":
            return self.open_training(case["layers"], arrays)
        self.evaluate = cnn(self.ct, case["activation"], arrays) if kind == "cnn" else operation(self.ct, kind, arrays)
        shared = time.perf_counter() - began
        self.provider.request_cache, self.provider.tuple_cache = [], {}
        self.ct.trace(True)
        self.evaluate()
        self.ct.trace(False)
        before_dealing = tcp_bytes()
        self.deal()
        figures, seconds, result, received = self.counted()
        expected = arrays["expected"]
        exact = (result.reveal().double() / result.encoder.scale).numpy()
        decoded = result.get_plain_text().double().numpy()
        figures |= {
            "offline.bytes_received_per_party": received - before_dealing[1],
            "max_abs_error": float(np.abs(exact - expected).max()),
            "max_abs_error_as_decoded": float(np.abs(decoded - expected).max()),
            "input.seconds": shared,
            "peak_memory": peak_memory(),
        }
        if case["kind"] == "cnn":  # the model's export and encryption are in it
            del figures["input.seconds"]
        return {"figures": figures, "seconds": seconds, "version": self.ct.__version__}

    def open_training(self, layers: list, arrays: dict) -> dict:
        """Steps make their triples themselves."""
        self.evaluate = training(self.ct, layers, arrays)
        self.provider.request_cache, self.provider.tuple_cache = [], {}
        figures, seconds, _, _ = self.counted()
        figures["peak_memory"] = peak_memory()
        return {"figures": figures, "seconds": seconds, "version": self.ct.__version__}

    def counted(self) -> tuple:
        """What one evaluation sends, and in how many rounds; its seconds and result; bytes received until then."""
        self.barrier()
        time.sleep(SETTLE)
        config, before = self.ct.config.cfg, tcp_bytes()
        config.communicator.verbose = True
        self.link.reset_communication_stats()
        seconds, result = self.timed(barrier=False)
        statistics = self.link.get_communication_stats()
        config.communicator.verbose = False
        time.sleep(SETTLE)
        sent = tcp_bytes()[0] - before[0]
        figures = {"online.bytes_per_party": sent, "online.rounds": int(statistics["rounds"])}
        return figures, seconds, result, before[1]

    def deal(self) -> float:
        self.provider.tuple_cache.clear()
        self.barrier()
        began = time.perf_counter()
        self.ct.fill_cache()
        return time.perf_counter() - began

    def timed(self, barrier: bool = True):
        if barrier:
            self.barrier()
        began = time.perf_counter()
        result = self.evaluate()
        if not self.held:
            result.get_plain_text()
        return time.perf_counter() - began, result


def operation(ct, kind: str, arrays: dict):
    import torch

    x = ct.cryptensor(torch.from_numpy(arrays["x"]), src=0)
    if kind in ("multiply", "matmul"):
        y = ct.cryptensor(torch.from_numpy(arrays["y"]), src=1)
        return (lambda: x * y) if kind == "multiply" else (lambda: x.matmul(y))
    functions = {
        "sigmoid": lambda: x.sigmoid(),
        "exp": lambda: x.exp(),
        "relu": lambda: x.relu(),
        "max_pool2d": lambda: x.max_pool2d(2),
        "argmax": lambda: x.argmax(dim=1, one_hot=False),
        "softmax": lambda: x.softmax(dim=1),
    }
    if kind not in functions:
        raise Lacks(f"this runner has no {kind}")
    return functions[kind]


def cnn(ct, activation: str, arrays: dict):
    """The network with its weights from party 0, on the images of party 1."""
    import torch
    from torch import nn

    shape = {name: a.shape for name, a in arrays.items()}
    convolutions, dense = ("conv1.weight", "conv2.weight"), ("fc1.weight", "fc2.weight")
    (o1, i1, k, _), (o2, i2, _, _) = (shape[name] for name in convolutions)
    (h1, f1), (h2, f2) = (shape[name] for name in dense)
    active = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}[activation]
    model = nn.Sequential(
        nn.Conv2d(i1, o1, k, padding=k // 2), active(), nn.AvgPool2d(2),
        nn.Conv2d(i2, o2, k, padding=k // 2), active(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(f1, h1), active(), nn.Linear(f2, h2),
    ).eval()  # fmt: skip
    layers = [layer for layer in model if isinstance(layer, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        for layer, name in zip(layers, ("conv1", "conv2", "fc1", "fc2")):
            layer.weight.copy_(torch.from_numpy(arrays[f"{name}.weight"]))
            layer.bias.copy_(torch.from_numpy(arrays[f"{name}.bias"]))
    x = torch.from_numpy(arrays["x"]).float()
    encrypted = ct.nn.from_pytorch(model, x[:1])
    for module in encrypted.modules():
        # The cache of triples hashes a convolution's arguments, and ONNX gives lists.
        for name, value in vars(module).items():
            if name in ("stride", "padding", "dilation") and isinstance(value, list):
                setattr(module, name, tuple(value))
    encrypted.eval()
    encrypted.encrypt(src=0)
    images = ct.cryptensor(x, src=1)

    def evaluate():
        with ct.no_grad():
            return encrypted(images)

    return evaluate


def training(ct, layers: list, arrays: dict):
    """A step of SGD: forward, cross-entropy, backward, update; weights from party 0, rows of party 1."""
    import torch
    from torch import nn

    made = {
        "conv": lambda before, after, k: nn.Conv2d(before, after, k, padding=k // 2),
        "linear": nn.Linear,
        "sigmoid": nn.Sigmoid,
        "relu": nn.ReLU,
        "pool": nn.AvgPool2d,
        "flatten": nn.Flatten,
    }
    torch.manual_seed(7)
    model = nn.Sequential(*(made[name](*sizes) for name, *sizes in layers)).train()
    x, y = (torch.from_numpy(arrays[name]).float() for name in "xy")
    encrypted = ct.nn.from_pytorch(model, x[:1])
    encrypted.train()
    encrypted.encrypt(src=0)
    rows, targets = ct.cryptensor(x, src=1), ct.cryptensor(y, src=1)
    loss = ct.nn.CrossEntropyLoss()

    def step():
        value = loss(encrypted(rows), targets)
        encrypted.zero_grad()
        value.backward()
        encrypted.update_parameters(2.0**-8)
        return value

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parties", type=int, default=2)
    parser.add_argument("--dealer", action="store_true")
    parser.add_argument("--party", metavar="PROVIDER", help="be one of the parties")
    options = parser.parse_args()
    answers = claim_stdout()
    if options.party is None:
        serve(Runner(options.parties, options.dealer), answers)
    elif os.environ["RANK"] == os.environ["WORLD_SIZE"]:
        ct = import_crypten()
        ct.config.cfg.mpc.provider = options.party
        ct.mpc.provider.TTPServer()
    else:
        serve(Party(options.party), answers)


if __name__ == "__main__":
    main()
