"""Which commands there are: who uses them, what they are for, and how they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

CLINIC = "clinic: ask about data that only you can see"
OWNER = "owner: store a model or data, and say who may use it"
OPERATOR = "operator: run servers"
DEVELOPER = "developer: build and measure"
GROUPS = (CLINIC, OWNER, OPERATOR, DEVELOPER)


class Described(NamedTuple):
    """A command, in a file of its name.  ``examples``: a call each, and what it does."""

    group: str
    help: str
    examples: Sequence[tuple[str, str]]


COMMANDS: Mapping[str, Described] = {
    "predict": Described(
        CLINIC,
        "a model's answer to a photograph that only you can see",
        (
            ("tessera predict lesion.jpg", "by the only model that is there"),
            ("tessera predict --model acme/risk patients.csv --json", "a table, a row at a time, for programs"),
            ("tessera predict x.npy --cluster clinic/cluster.toml", "one input, or a batch of them"),
        ),
    ),
    "clinic": Described(
        CLINIC,
        "a web page on this computer: photograph in, shares out, answer back",
        (
            ("tessera clinic --open", "for the only model that is there, in a browser"),
            ("tessera clinic --model acme/lesions --listen 127.0.0.1:9000", "elsewhere"),
        ),
    ),
    "deal": Described(
        CLINIC,
        "have preprocessing dealt ahead of time, for later predictions",
        (
            ("tessera deal --count 100", "for a hundred predictions of one image each"),
            ("tessera deal --count 100 --low-water 20", "and again, whenever fewer than 20 are left"),
        ),
    ),
    "models": Described(
        CLINIC,
        "list the models and data sets stored on the parties",
        (("tessera models", "yours, and those that you may use; who may do what with yours"),),
    ),
    "request": Described(
        CLINIC,
        "ask the owners of what a program reads for leave to run it",
        (
            ("tessera request mean.tsr --why 'average age, for the yearly report'", "as client.save(y, FILE) wrote it"),
            ("tessera request --withdraw 3f1c9a02", "no more"),
        ),
    ),
    "jobs": Described(
        CLINIC,
        "trainings that go on by themselves: how far they are, what they reveal, and the end of one",
        (
            ("tessera jobs", "yours, and those on data of yours"),
            ("tessera jobs network --follow", "each checkpoint of it as soon as it is there, with curves at the end"),
            ("tessera jobs network --stop", "it does not go on, and stays what it has become"),
        ),
    ),
    "upload": Described(
        OWNER,
        "store a model, or data, on the parties, as shares",
        (
            ("tessera upload net.py:net --samples inputs.npy", "a torch module, compared with its source on these"),
            ("tessera upload net.onnx --name risk --range 0 1", "an ONNX file, for inputs between 0 and 1"),
            ("tessera upload derm", "the small network that ships"),
            ("tessera upload patients.npz --range 0 120", "arrays: a data set"),
        ),
    ),
    "allow": Described(
        OWNER,
        "say who may run what on a model or data set of yours (at first nobody but you)",
        (
            ("tessera allow risk clinic --per-day 100", "it may predict, a hundred times a day"),
            ("tessera allow patients university --schema", "it may know names, shapes and ranges, and ask"),
            ("tessera allow risk clinic --nothing", "not any more"),
            ("tessera allow study/network study", "it may predict by what belongs to you both"),
        ),
    ),
    "requests": Described(
        OWNER,
        "what others ask of you, what you have asked, and what became of it",
        (("tessera requests", "each with the digest that show, approve and deny take"),),
    ),
    "show": Described(
        OWNER,
        "a program in words: what it reads, does and gives to whom, and what can be read from that",
        (
            ("tessera show 3f1c9a02", "one that is asked for; the first 8 digits will do"),
            ("tessera show mean.tsr", "a program in a file"),
        ),
    ),
    "approve": Described(
        OWNER,
        "let who asks for it run a program on data of yours",
        (("tessera approve 3f1c9a02 --runs 1", "once, on all that it reads of yours"),),
    ),
    "deny": Described(
        OWNER,
        "say no to who asks for a program, and why",
        (("tessera deny 3f1c9a02 --why 'fewer than 50 people'", "the reason is what who asks is told"),),
    ),
    "rm": Described(
        OWNER,
        "remove models and data sets of yours from dealer and parties, for good",
        (("tessera rm risk patients", "both"),),
    ),
    "init": Described(
        OPERATOR,
        "write a cluster file, and keys, for several hosts; asks what is missing",
        (
            ("tessera init", "asks for everything"),
            (
                "tessera init --dealer d.example.org --party a=a.example.org --party b=b.example.org --client clinic"
                " --security malicious --name lesions",
                "asks for nothing",
            ),
        ),
    ),
    "keygen": Described(
        OPERATOR,
        "make an identity: a secret key file, and a public key to hand out",
        (("tessera keygen clinic", "clinic.key stays on this host; what is printed goes into the cluster file"),),
    ),
    "doctor": Described(
        OPERATOR,
        "what this computer has and lacks: versions, processor, kernels, ports, clock",
        (
            ("tessera doctor", "of this computer alone"),
            ("tessera doctor --cluster cluster.toml", "and whether it may serve, or reach, these members"),
        ),
    ),
    "dealer": Described(
        OPERATOR,
        "serve as the dealer: correlated randomness, never data",
        (
            ("tessera dealer", "of cluster.toml, with dealer.key beside it"),
            ("tessera dealer --metrics 127.0.0.1:9100 --log-format json", "watched by Prometheus"),
        ),
    ),
    "party": Described(
        OPERATOR,
        "serve as one of the parties",
        (("tessera party 0", "the first [[party]] of cluster.toml, with its key beside it"),),
    ),
    "check": Described(
        OPERATOR,
        "every link in both directions, keys, versions, clocks and data folders: what is wrong?",
        (("tessera check", "as a client, whom the servers tell"), ("tessera check --no-bandwidth --json", "quickly")),
    ),
    "status": Described(
        OPERATOR,
        "what each server holds and does: models, data sets, preprocessing in stock, runs, peers",
        (("tessera status --watch 5", "every five seconds"),),
    ),
    "cluster": Described(
        OPERATOR,
        "the cluster file in force; propose and accept another one while servers run",
        (
            ("tessera cluster show", "which one is in force, and what is proposed"),
            ("tessera cluster propose --remove clinic", "the same members but one"),
            ("tessera cluster accept --fingerprint 1b2c3d4e", "what is proposed, if it is that"),
        ),
    ),
    "audit": Described(
        OPERATOR,
        "what a server's audit log says, whether it is whole, and where two of them differ",
        (
            ("tessera audit show a.data --since 7d", "of the last week"),
            ("tessera audit verify a.data --with b.data", "whole, up to where the other server has seen it"),
            ("tessera audit mine", "my runs, and others' on what is mine"),
        ),
    ),
    "backup": Described(
        OPERATOR,
        "what of a server's data folder may be put back, in one file, while it runs",
        (("tessera backup --data a.data --out a.backup", "keep it apart from the key"),),
    ),
    "restore": Described(
        OPERATOR,
        "make a server's data folder of a backup",
        (("tessera restore a.backup --key a.key --data a.data", "into a folder that is empty"),),
    ),
    "completion": Described(
        DEVELOPER,
        "have a shell complete commands and their flags: bash, zsh or fish",
        (
            ("tessera completion bash > ~/.local/share/bash-completion/completions/tessera", "for bash"),
            ("tessera completion fish > ~/.config/fish/completions/tessera.fish", "for fish"),
        ),
    ),
}
"""By group, in the order in which one meets them."""
