"""``tessera jobs --page`` in a real headless Chromium: curves as they come, an end, and what goes on from there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

import tessera as ts
from parties import Client, LocalCluster, Settings
from tests.end_to_end.pages import UNNAMED, opened, served

pytestmark = pytest.mark.slow

NETWORK = ts.Sequential({"out": ts.nn.Linear(4, 3)})


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    settings = Settings(threads=1)
    with LocalCluster(2, clients=("study", "north"), settings=settings) as running:
        rng = np.random.default_rng(1)
        x = np.round(rng.uniform(-1, 1, (48, 4)) * 256) / 256
        rows = {"x": x, "y": np.eye(3)[x[:, :3].argmax(1)]}
        with client_of(running, "study") as study:
            study.upload(ts.DataSet(rows, ranges={"x": (-1, 1), "y": (0, 1)}, fraction_bits=8), "data")
            training = study.training(
                NETWORK, study.data("data"), ts.nn.CrossEntropyLoss(), ts.nn.SGD(lr=0.25), name="kinds", batch=16,
                epochs=4000, steps=1, logits=8, losses=True, validate=study.data("data"),
            )  # fmt: skip
            study.submit(training)
        yield running


def client_of(cluster: LocalCluster, name: str) -> Client:
    return Client(cluster.cluster, cluster.client_keys[name])


def test_a_training_is_followed_stopped_and_resumed(browser: Browser, cluster: LocalCluster) -> None:
    with served(cluster, "jobs", "--page", client="study") as address, opened(browser, address) as page:
        expect(page.locator("#about")).to_have_text("study · 2 parties: party0, party1")
        for name in ("Loss", "Balanced accuracy"):
            curve = page.get_by_role("img", name=re.compile(rf"^{name}: .* at step 1, .* at step (?!1$)"))
            expect(curve).to_be_visible()
        expect(page.locator("#facts")).to_contain_text(re.compile(r"goes on.*of 12,000.*Time left", re.DOTALL))
        assert page.evaluate(UNNAMED) == []
        page.get_by_role("button", name="Stop", exact=True).click()
        expect(page.get_by_role("status")).to_contain_text("Stopped")
        expect(page.locator("#facts")).to_contain_text("stopped")
        came_to = re.search(r"([\d,]+) of", page.locator("#facts").inner_text())
        assert came_to is not None

        page.get_by_role("button", name="Resume").click()
        expect(page.locator("#jobs button")).to_have_count(2)
        expect(page.locator("#jobs button").first).to_have_attribute("aria-pressed", "true")
        # Curves begin where the training began, and go on.
        earlier = "|".join(map(str, range(1, int(came_to[1].replace(",", "")) + 1)))
        beyond = re.compile(rf"^Loss: .* at step 1, .* at step (?!(?:{earlier})$)")
        expect(page.get_by_role("img", name=beyond)).to_be_visible()
        page.get_by_text("All checkpoints, in numbers").click()
        expect(page.locator("#checkpoints th").first).to_be_visible()
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.get_by_role("button", name="Stop", exact=True).click()
        expect(page.locator("#jobs .going")).to_have_count(0)


def test_without_the_token(browser: Browser, cluster: LocalCluster) -> None:
    with served(cluster, "jobs", "--page", client="study") as address, contextlib.closing(browser.new_page()) as page:
        page.goto(address.partition("#")[0])
        expect(page.get_by_role("alert")).to_contain_text(
            "Open the address that tessera jobs --page printed, all of it"
        )
