"""``tessera check`` warns of what would be refused: each warning is followed by the refusal that it warns of."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import Any

import pytest

from mpc.errors import DiskFull, ServerBusy, TesseraError, TooLarge
from mpc.security import Security
from nn import Linear, Model, Sequential
from parties import DataSet
from parties.commands.check import check, stored
from parties.host import disk
from parties.operate.audit.quota import MIB, Used
from parties.operate.check.report import Report
from parties.servers.admission import Admission


def model() -> Model:
    net = Sequential({"out": Linear(64, 64, bias=False)}).architecture((64,))
    return Model(net, {"out.weight": [[0.01] * 64] * 64})


async def checked(wired: Any, name: str = "company") -> Report:
    report = await check(wired.cluster, wired.keys[name], 5, bandwidth=False)
    assert report.ok, report.failures()
    report.stored = await stored(wired.cluster, wired.keys[name], 5)
    return report


async def uploaded(wired: Any) -> None:
    async with wired.client("company") as company:
        await company.upload(model(), "m")
        await company.allow("m", "clinic")
        await company.upload(DataSet({"x": [0.5]}, low=0, high=1), "d")


async def test_nothing_to_warn_of(wired: Any) -> None:
    await uploaded(wired)
    for name in ("company", "clinic"):
        report = await checked(wired, name)
        assert report.warnings() == []
        found = report.to_dict()
        assert {row["largest_upload"] is None for row in found["servers"] if row["role"] == "dealer"} == {True}
        assert all(row["largest_run_elements"] for row in found["servers"])
        own = {row["quotas"]["names"]["used"] for row in found["servers"]}
        assert own == ({2} if name == "company" else {0})


@pytest.mark.parametrize("server", ["dealer", "party1"])
async def test_names(wired: Any, server: str) -> None:
    await uploaded(wired)
    wired.servers[server].governor.quotas.names = 2
    (warning,) = (await checked(wired)).warnings()
    assert warning.startswith(f"{server}: company has 2 of 2 names")
    assert (await checked(wired, "clinic")).warnings() == []
    async with wired.client("company") as company:
        with pytest.raises(ServerBusy, match="has 2 names"):
            await company.upload(model(), "another")


async def test_room_on_the_disk(wired: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await uploaded(wired)
    free = disk.RESERVE + (40 << 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free, total=4 * free))
    warnings = (await checked(wired)).warnings()
    (own,) = [text for text in warnings if text.startswith("party0: another upload like company/m (")]
    assert "would be refused" in own
    assert not any("company/d" in text for text in warnings)
    assert not any("another upload" in text for text in (await checked(wired, "clinic")).warnings())
    async with wired.client("company") as company:
        with pytest.raises((DiskFull, ServerBusy)):
            await company.upload(model(), "another")


async def test_memory_for_a_run(wired: Any) -> None:
    await uploaded(wired)
    admission = Admission("party0", 1 << 12, Security.SEMI_HONEST, clients=2)
    wired.servers["party0"].governor.admission = admission
    for name in ("company", "clinic"):
        (warning,) = (await checked(wired, name)).warnings()
        assert warning.startswith("party0: runs of company/m are refused: one input takes")
        assert "memory_mb" in warning
    async with wired.client("clinic") as clinic:
        with pytest.raises((TooLarge, TesseraError)):
            await clinic.predict(await clinic.model("m"), [[0.5] * 64])


async def test_a_party_that_has_lost_it(wired: Any) -> None:
    await uploaded(wired)
    await wired.stop("party1")
    shutil.rmtree(wired.data("party1"))
    await wired.start("party1")
    warnings = (await checked(wired)).warnings()
    assert any(text.startswith("company/m is not at all parties") for text in warnings)


@pytest.mark.parametrize("server", ["dealer", "party1"])
async def test_the_audit_log(wired: Any, server: str) -> None:
    await uploaded(wired)
    quotas = wired.servers[server].audit._log.quotas
    quotas.charge("company", 3 * 64 * MIB - 100_000)
    (warning,) = (await checked(wired)).warnings()
    assert warning.startswith(f"{server}: company has 201,")
    assert (
        "of 201,326,592 bytes of the audit log for a day: beyond them runs, uploads and orders are refused" in warning
    )
    assert (await checked(wired, "clinic")).warnings() == []
    quotas.restore({"company": Used(3 * 64 * MIB, quotas._clock())})
    async with wired.client("company") as company:
        with pytest.raises(ServerBusy, match=f"{server}: company has filled its part of the audit log"):
            await company.upload(model(), "other")
