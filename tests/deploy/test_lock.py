"""deploy/requirements.lock: what pyproject.toml asks for, nothing else, each by its hashes; and what is made of it."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(text) for text in (*PROJECT["dependencies"], *EXTRAS["service"])]
SHIPPED = [*DIRECT, *(Requirement(text) for extra in ("clinic", "bench", "examples") for text in EXTRAS[extra])]


def locked(name: str) -> dict[str, tuple[Requirement, list[str], set[str]]]:
    """By package: what is pinned, the hashes of its files, and what asks for it."""
    found = {}
    for entry in re.split(r"\n(?=[a-z])", (ROOT / "deploy" / name).read_text()):
        if entry.startswith("#"):
            continue
        pinned = Requirement(entry.partition("\\")[0].strip())
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)
        asking = set(re.findall(r"#(?: via)? +([\w.-]+)", entry.replace("# via\n", "")))
        found[canonicalize_name(pinned.name)] = pinned, hashes, asking
    return found


LOCK = locked("requirements.lock")


@pytest.mark.parametrize("name", ["requirements.lock", "build.lock"])
def test_each_package_has_one_version_and_its_hashes(name: str) -> None:
    for pinned, hashes, _ in locked(name).values():
        assert re.fullmatch(r"==[\w.]+", str(pinned.specifier)), pinned
        assert hashes, pinned


@pytest.mark.parametrize("wanted", DIRECT, ids=lambda wanted: wanted.name)
def test_what_is_asked_for_is_locked_at_its_newest_tested_version(wanted: Requirement) -> None:
    pinned, _, asking = LOCK[canonicalize_name(wanted.name)]
    (pin,) = pinned.specifier
    assert wanted.specifier.contains(pin.version)
    assert "tessera-mpc" in asking


def test_nothing_else_is_locked() -> None:
    known = {*LOCK, "tessera-mpc"}
    for name, (_, _, asking) in LOCK.items():
        assert asking, name
        assert {canonicalize_name(one) for one in asking} <= known, name
    direct = {canonicalize_name(wanted.name) for wanted in DIRECT}
    assert {name for name, (_, _, asking) in LOCK.items() if "tessera-mpc" in asking} == direct


@pytest.mark.parametrize("wanted", SHIPPED, ids=lambda wanted: wanted.name)
def test_ranges_have_both_ends(wanted: Requirement) -> None:
    assert sorted(one.operator for one in wanted.specifier) == ["<", ">="], wanted


def test_what_the_tests_run_with_is_the_newest() -> None:
    """What a ceiling promises is what this environment, which is the newest that pip finds, is tested with."""
    from importlib.metadata import PackageNotFoundError, version

    for wanted in SHIPPED:
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            # The examples' alone are nothing that the package needs.
            assert wanted.name in {Requirement(text).name for text in EXTRAS["examples"]}
            continue
        assert wanted.specifier.contains(found), wanted


@pytest.mark.skipif("TESSERA_SBOM" not in os.environ, reason="CI makes one, and says here where it is")
def test_the_bill_of_materials_lists_what_is_locked() -> None:
    bill = json.loads(Path(os.environ["TESSERA_SBOM"]).read_text())
    assert bill["metadata"]["component"]["name"] == "tessera-mpc"
    listed = {canonicalize_name(one["name"]): one["version"] for one in bill["components"]}
    build = locked("build.lock")
    wanted = {
        name: next(iter(pinned.specifier)).version
        for name, (pinned, _, _) in {**LOCK, **build}.items()
        if pinned.marker is None or pinned.marker.evaluate(dict(default_environment()))
    }
    assert listed == wanted
