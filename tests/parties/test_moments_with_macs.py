"""As ``test_moments.py``, with MACs: a file of its own, since each waits at every moment, and workers share files."""

from __future__ import annotations

from typing import Any

import pytest

from mpc.security import Security

from .test_moments import cases, nothing_leaves


@pytest.mark.parametrize(("change", "name", "run", "stock"), list(cases(Security.MALICIOUS)))
async def test_nothing_of_a_run_without_leave_leaves_the_one_honest_server(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, change: str, name: str, run: str, stock: bool
) -> None:
    await nothing_leaves(tmp_path, monkeypatch, Security.MALICIOUS, change, name, run, stock)
