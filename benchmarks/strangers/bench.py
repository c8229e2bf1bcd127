"""``tessera bench strangers``: attack by attack, what it does to honest clients and servers, and whether that is within
what is promised: `benchmarks.strangers.siege` measures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks.machine import machine
from benchmarks.records import Recorder, flatten
from benchmarks.report import megabytes, plain_table, progress_bar, stdout_console
from benchmarks.strangers.command import BOTH
from benchmarks.strangers.siege import ATTACKS, MEMORY, MOST_DELAY, SLACK, besieged
from mpc.errors import NotAsPromised, UsageError
from mpc.security import Security

Row = dict[str, Any]


def run(options: argparse.Namespace) -> int:
    """Measure and print; the exit code: NotAsPromised's if a row is not within its bounds."""
    recorder = Recorder.of(options)
    names = options.attacks or list(ATTACKS)
    for name in names:
        if name not in ATTACKS:
            raise UsageError(f"there is no attack called {name!r}: there are {', '.join(map(repr, ATTACKS))}")
    securities = list(map(str, Security)) if options.security == BOTH else [options.security]
    case = {"model": "derm", "parties": options.parties}
    rows: list[Row] = []
    with progress_bar("attacking", len(securities) * len(names) * (2 * options.pairs + 1)) as advance:
        for security in securities:
            for name in names:
                advance.describe(f"{name}, {security}")
                row = besieged(name, security, options, advance)
                rows.append(row)
                of = {**case, "security": security, "attack": name}
                recorder.add("strangers", of, figures(row), {"within": row["within"]})
    failure = beyond(rows)
    if options.json:
        recorder.print_json({
            **case,
            **{key: getattr(options, key) for key in ("seconds", "pairs", "rate", "connections")},
            "rows": rows,
            "machine": machine(),
        })  # fmt: skip
    else:
        for security in securities:
            _print([row for row in rows if row["security"] == security], {**case, "security": security}, options)
    return recorder.finish(failure.to_dict() if failure else None)


def figures(row: Row) -> dict[str, Any]:
    """What is kept of a row; what servers needed as floats, as whole numbers are taken to be exact."""
    server = {f"server.{name}": float(count) for name, count in row["server"].items()}
    return {**flatten(row, "quiet", "attacked", "ratio", "failures", "burnt"), **server}


def beyond(rows: Sequence[Row]) -> NotAsPromised | None:
    """Which rows are not within their bounds, and of what."""
    found = [
        f"{row['attack']} ({row['security']}: {', '.join(which)})"
        for row in rows
        if (which := [name for name, within in row["within"].items() if not within])
    ]
    return NotAsPromised(f"not within their bounds: {'; '.join(found)}") if found else None


def _print(rows: Sequence[Row], case: dict[str, Any], options: argparse.Namespace) -> None:
    console, memory = stdout_console(), MEMORY[Security(case["security"])]
    console.print(
        f"{case['model']}, {case['security']}, {case['parties']} parties and a dealer with {memory} MiB for runs;"
        f" {options.pairs} attacked blocks of {options.seconds} s among quiet ones: whole predictions (uploads, where"
        " those are delayed), in ms, attacked / quiet"
    )
    table = plain_table(
        "attack", "samples", "median", "times", "p99", "times", "online", "within", "failed", "burnt", "within",
        "memory", "within",
    )  # fmt: skip
    for row in rows:
        hit, calm, ratio, within = row["attacked"], row["quiet"], row["ratio"], row["within"]
        table.add_row(
            row["attack"], f"{hit['seconds']['count']} / {calm['seconds']['count']}",
            _pair(hit["seconds"]["median"], calm["seconds"]["median"]), f"{ratio['seconds']:.2f}",
            _pair(hit["p99_seconds"], calm["p99_seconds"]), f"{ratio['p99_seconds']:.2f}",
            f"{ratio['p99_online_seconds']:.2f}" if "p99_online_seconds" in ratio else "", _said(within["p99"]),
            str(row["failures"]), str(row["burnt"]), _said(within["others"]),
            megabytes(row["server"]["peak_bytes"]), _said(within["memory"]),
        )  # fmt: skip
    console.print(table)
    table = plain_table("attack", "CPU", "before", "after", "restarted", "files", "log", "sent", "longest", "answers")
    for row in rows:
        server, tally = row["server"], row["attackers"]
        answers = [f"{count:,} {kind}" for kind, count in tally.get("refused", {}).items()]
        decoding = [f"{megabytes(tally['peak_bytes'])} to decode"] if "peak_bytes" in tally else []
        table.add_row(
            row["attack"], f"{server['cpu']:.0%}",
            *(megabytes(server[key]) for key in ("resident_bytes_before", "resident_bytes_after", "restarted_bytes")),
            "/".join(str(server[f"descriptors_{when}"]) for when in ("before", "during", "after")),
            str(server["log_lines"]), f"{tally.get('sent', tally.get('opened', 0)):,}",
            f"{tally['longest_seconds']:.2f} s" if "longest_seconds" in tally else "", ", ".join(answers + decoding),
        )  # fmt: skip
    console.print(table)
    console.print(
        f"Within: p99 at most {MOST_DELAY:g} times the quiet one; nothing of the honest client's refused or failed, and"
        f" its stock untouched; memory of each honest server at most {memory + SLACK} MiB, started again as well, and"
        " what decoding pictures takes as nn.pictures says.  CPU: that the attack cost each of them.  Files:"
        " before/during/after.  Longest: until the attackers were answered, or shown the door."
    )
    console.print(
        "Times: of each attacked block, in terms of the two quiet ones beside it, within the same minute; the median of"
        " these blocks.  In a block of fewer than 100 samples the p99 is hardly less than the slowest, and says little"
        " of a machine that does other work: compare more and longer blocks then (--pairs, --seconds)."
    )


def _pair(attacked: float, quiet: float) -> str:
    return f"{attacked * 1e3:,.0f} / {quiet * 1e3:,.0f}"


def _said(within: bool) -> str:
    return "yes" if within else "no"
