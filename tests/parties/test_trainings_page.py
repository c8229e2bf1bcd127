"""The server of ``tessera jobs --page``: whose trainings it shows, to whom, and what may be done with them."""

import json

import numpy as np
import pytest
from aiohttp import ClientSession, web

from nn import SGD, CrossEntropyLoss, Linear, Sequential
from parties import DataSet
from parties.pages.guard import HEADERS
from parties.pages.loopback import LOCAL
from parties.pages.trainings import TrainingsPage

pytestmark = pytest.mark.usefixtures("unhurried")

AUTHORISED = {"Authorization": "Bearer " + "t" * 32}


async def asked(client, *requests):
    """What the page of that client answers: status and JSON, of the last line where there are several."""
    runner, found = TrainingsPage(client).runner("t" * 32, LOCAL), []
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as browser:
            for method, path, headers in requests:
                async with browser.request(method, path, headers=headers) as response:
                    assert {name: response.headers.get(name) for name in HEADERS} == HEADERS
                    *_, last = (await response.text()).splitlines()
                    found.append((response.status, json.loads(last)))
    finally:
        await runner.cleanup()
    return found


async def test_it_shows_what_its_client_may_know(site):
    rng = np.random.default_rng(1)
    x = np.round(rng.uniform(-1, 1, (12, 4)) * 256) / 256
    rows = DataSet({"x": x, "y": np.eye(3)[x[:, :3].argmax(1)]}, ranges={"x": (-1, 1), "y": (0, 1)}, fraction_bits=8)
    network = Sequential({"out": Linear(4, 3)}).architecture((4,))
    async with site.client() as clinic, site.client("company") as company:
        await company.upload(rows, "data")
        await company.allow("data", "clinic", schema=True)
        training = await clinic.training(
            network, await clinic.data("company/data"), CrossEntropyLoss(), SGD(lr=0.125), name="net", batch=6,
            steps=1, epochs=1, logits=4.0, losses=True,
        )  # fmt: skip
        await company.approve(await clinic.request(training.kept, "kinds"))
        job = await clinic.submit(training)
        await job.wait()
        listed, over, again, stranger, elsewhere, none = await asked(
            clinic,
            ("GET", "/api/jobs", AUTHORISED),
            ("GET", f"/api/jobs/{job.id}/follow", AUTHORISED),
            ("POST", f"/api/jobs/{job.id}/resume", AUTHORISED),
            ("POST", f"/api/jobs/{job.id}/stop", {}),
            ("POST", f"/api/jobs/{job.id}/stop", {**AUTHORISED, "Origin": "http://evil.example"}),
            ("POST", "/api/jobs/nothing/stop", AUTHORISED),
        )
        (seen,) = listed[1]["jobs"]
        assert (seen["name"], seen["own"], seen["step"], seen["reveals"]) == ("clinic/net", True, 2, ["loss"])
        assert over == (200, {"step": "over"})
        assert again[0] == 502 and "all of its steps" in again[1]["message"]
        assert (stranger[0], elsewhere[0], none[0]) == (401, 403, 502)
        # Its owner sees how far it is, and neither what it reveals nor how to end it.
        theirs, revealed, stopped = await asked(
            company,
            ("GET", "/api/jobs", AUTHORISED),
            ("GET", f"/api/jobs/{job.id}/follow", AUTHORISED),
            ("POST", f"/api/jobs/{job.id}/stop", AUTHORISED),
        )
        (seen,) = theirs[1]["jobs"]
        assert (seen["own"], seen["step"]) == (False, 2)
        assert revealed[1]["error"] == stopped[1]["error"] == "NoSuchName"
        assert (await job.standing()).state == "done"
