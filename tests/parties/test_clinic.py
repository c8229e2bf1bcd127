"""The server of ``tessera clinic``: whom it answers, what it says at each step, and when things go wrong."""

import argparse
import asyncio
import base64
import contextlib
import io
import json
import struct
import sys
import zlib

import numpy as np
import pytest
from aiohttp import ClientSession, web
from PIL import Image

from mpc.errors import (
    ConfigurationError,
    EncodingError,
    MacCheckError,
    NotPermitted,
    PeerError,
    PeerLost,
    PeerUnavailable,
    ShapeError,
    UsageError,
)
from nn import ArrayInput, Classes, Flatten, ImageInput, Interface, Label, Linear, Model, Sequential
from nn.derm import CLASS_CODES, class_probabilities, load_image, samples
from nn.derm.dataset import CLASSES
from nn.derm.model import INTERFACE, derm_model
from nn.derm.preprocess import INPUT
from nn.interface import NOTHING_SAID
from parties.commands import clinic as command
from parties.commands import page as served_page
from parties.pages import clinic as server
from parties.pages.advice import advice
from parties.pages.clinic import ClinicPage
from parties.pages.guard import HEADERS
from parties.pages.loopback import LOCAL

TOKEN = "t" * 32
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}
SAMPLE = samples()[0].path


@contextlib.asynccontextmanager
async def served(client, model="derm"):
    runner = ClinicPage(client, model).runner(TOKEN, LOCAL | {"clinic.test"})
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as browser:
            yield browser
    finally:
        await runner.cleanup()


@pytest.fixture
def site(patient):
    """The command that serves the page makes its own client, over sockets."""
    return patient


@pytest.fixture
async def page(site):
    """A browser's connection to the page of the client ``clinic``, whose own model it is."""
    async with site.client() as client:
        await client.upload(derm_model(), "derm")
        async with served(client) as browser:
            yield browser


async def steps(browser, photograph, **headers):
    async with browser.post("/api/predict", data=photograph, headers={**AUTHORISED, **headers}) as response:
        return [json.loads(line) async for line in response.content]


def pixels(step, key):
    return np.frombuffer(base64.b64decode(step[key]), np.uint8).reshape(28, 28, 3)


def png(side, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(stream, kind)
    return stream.getvalue()


def claims_to_be(width, height):
    """A PNG of a few bytes that says it has so many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# -- answers -------------------------------------------------------------------------------------------------------


async def test_each_step_and_the_answer(page):
    found = await steps(page, SAMPLE.read_bytes())
    assert [step["step"] for step in found] == ["seen", "prepared", "masked", "answered"]
    seen, prepared, masked, answered = found
    values = load_image(SAMPLE)
    assert np.abs(pixels(seen, "image") - np.moveaxis((values + 1) / 2 * 255, 0, -1)).max() <= 0.5
    assert seen["warnings"] == []
    assert prepared["bytes"] > 1e6
    for key in ("mask", "masked"):
        noise = pixels(masked, key).ravel()
        counts = np.bincount(noise >> 5, minlength=8)
        # 2,352 bytes: a count is 294 on average, with a deviation of 16.
        assert np.abs(counts - noise.size / 8).max() < 6 * 16
    exact = class_probabilities(derm_model().plain(values[None]))[0]
    assert [found["code"] for found in answered["classes"]] == list(CLASS_CODES)
    assert [found["probability"] for found in answered["classes"]] == pytest.approx(exact, abs=1e-3)
    assert answered["notice"].startswith("Not for diagnosis.")
    assert answered["run"]["online"]["rounds"] == 8
    here = answered["run"]["here"]
    # x - a to each of two parties, 3 x 28 x 28 numbers of 8 bytes; of each, its share of 7 outputs and a bit.
    assert here["online"] == {"sent": 2 * 8 * 3 * 28 * 28, "received": 2 * 8 * 8}
    assert min(here["offline"].values()) > 0


async def test_the_same_photograph_looks_different_each_time(page):
    first, second = [await steps(page, SAMPLE.read_bytes()) for _ in range(2)]
    assert first[0] == second[0]
    for key in ("mask", "masked"):
        differing = pixels(first[2], key) != pixels(second[2], key)
        assert differing.mean() > 0.98


async def test_whom_the_page_is_about(page):
    async with page.get("/api/about", headers=AUTHORISED) as response:
        about = await response.json()
    assert (about["client"], about["model"], about["security"]) == ("clinic", "derm", "semi-honest")
    assert about["subject"] == "a skin lesion"
    assert [party["name"] for party in about["parties"]] == ["party0", "party1"]
    assert "key" not in json.dumps(about)


# -- who is answered -----------------------------------------------------------------------------------------------


async def test_every_answer_carries_the_headers(page):
    for path, status in {"/": 200, "/clinic.js": 200, "/clinic.css": 200, "/none": 404, "/api/about": 401}.items():
        async with page.get(path) as response:
            assert response.status == status
            assert {name: response.headers.get(name) for name in HEADERS} == HEADERS
    async with page.post("/api/predict", data=png(8), headers=AUTHORISED) as response:
        assert {name: response.headers.get(name) for name in HEADERS} == HEADERS
    async with page.get("/", headers={"Host": "evil.example"}) as response:
        assert {name: response.headers.get(name) for name in HEADERS} == HEADERS


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": f"Bearer {TOKEN[:-1]}"}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": "Bearer \xff"}, 401),
        ({**AUTHORISED, "Host": "evil.example"}, 421),
        ({**AUTHORISED, "Host": "evil.example:8080"}, 421),
        ({**AUTHORISED, "Host": "127.0.0.1.evil.example"}, 421),
        ({**AUTHORISED, "Host": ""}, 421),
        ({**AUTHORISED, "Host": "[::1"}, 421),
        ({**AUTHORISED, "Origin": "http://evil.example"}, 403),
        ({**AUTHORISED, "Origin": "null"}, 403),
        ({**AUTHORISED, "Origin": "http://127.0.0.1.evil.example"}, 403),
        ({**AUTHORISED, "Origin": "http://127.0.0.1:1"}, 403),
        ({**AUTHORISED, "Host": "localhost:8080", "Origin": "http://localhost:8081"}, 403),
        ({**AUTHORISED, "Host": "localhost:8080", "Origin": "http://127.0.0.1:8080"}, 403),
        ({**AUTHORISED, "Host": "localhost:8080", "Origin": "http://localhost:8080"}, 200),
        ({**AUTHORISED, "Host": "LOCALHOST:8080", "Origin": "http://localhost:8080"}, 200),
        ({**AUTHORISED, "Host": "clinic.test", "Origin": "https://clinic.test"}, 200),
        # A proxy that puts a name of its own choice into Host.
        ({**AUTHORISED, "Origin": "https://clinic.test"}, 200),
        ({**AUTHORISED, "Host": "localhost:8080"}, 200),
        ({**AUTHORISED, "Host": "[::1]:8080"}, 200),
        (AUTHORISED, 200),
    ],
    ids=str,
)
async def test_who_is_answered(page, headers, status):
    for method, path in (("GET", "/api/about"), ("POST", "/api/predict")):
        data = png(8) if method == "POST" else None
        async with page.request(method, path, data=data, headers=headers) as response:
            assert response.status == status
            if status != 200:
                assert set(await response.json()) == {"step", "error", "message"}


async def test_what_there_is_not(page):
    for method, path, status in (
        ("GET", "/../clinic.py", 404),
        ("GET", "/%2e%2e/command.py", 404),
        ("GET", "/static/index.html", 404),
        ("PUT", "/api/predict", 405),
        ("GET", "/api/predict", 405),
    ):
        async with page.request(method, path, headers=AUTHORISED) as response:
            assert response.status == status


# -- what is no photograph -----------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is not a JPEG or PNG image"),
        (b"GIF89a" + bytes(100), "is not a JPEG or PNG image"),
        (png(40, "BMP"), "is not a JPEG or PNG image"),
        (png(40)[:60], "damaged"),
        (claims_to_be(20_000, 20_000), "more than 40,000,000 pixels"),
        (b"<svg/>", "is not a JPEG or PNG image"),
    ],
    ids=["nothing", "GIF", "BMP", "cut", "bomb", "SVG"],
)
async def test_what_is_no_photograph(page, data, complaint, caplog):
    (failed,) = await steps(page, data, **{"Content-Disposition": "attachment; filename=Jane-Doe.png"})
    assert (failed["step"], failed["error"], failed["exit_code"]) == ("failed", "EncodingError", 2)
    assert failed["message"].startswith("the photograph ")
    assert complaint in failed["message"]
    assert "Jane" not in caplog.text + str(failed)


async def test_a_file_that_is_too_large(page, monkeypatch):
    body = bytes(server.MAX_BYTES + 1)
    async with page.post("/api/predict", data=body, headers=AUTHORISED) as response:
        assert response.status == 413
        refused = await response.json()
    assert (refused["error"], refused["message"]) == ("TooLarge", server.TOO_LARGE)
    assert "20 MB" in refused["message"]


async def test_who_never_finishes_handing_over(page, monkeypatch):
    monkeypatch.setattr(server, "UPLOAD_SECONDS", 0.1)

    async def slowly():
        yield b"\x89PNG"
        await asyncio.sleep(5)

    async with page.post("/api/predict", data=slowly(), headers=AUTHORISED) as response:
        assert response.status == 408


# -- when things go wrong ------------------------------------------------------------------------------------------


async def test_too_many_at_once(site, page, monkeypatch):
    monkeypatch.setattr(server, "MAX_AT_ONCE", 0)
    async with page.post("/api/predict", data=SAMPLE.read_bytes(), headers=AUTHORISED) as response:
        assert response.status == 429
        assert (await response.json())["error"] == "Busy"


async def test_photographs_at_once_get_their_own_answers(page):
    paths = [sample.path for sample in samples()[:4]]
    found = await asyncio.gather(*(steps(page, path.read_bytes()) for path in paths))
    for path, (*_, answered) in zip(paths, found, strict=True):
        exact = class_probabilities(derm_model().plain(load_image(path)[None]))[0]
        assert [one["probability"] for one in answered["classes"]] == pytest.approx(exact, abs=1e-3)


async def test_a_party_that_is_down_and_back(site, page):
    await site.stop("party1")
    *_, failed = await steps(page, SAMPLE.read_bytes())
    assert (failed["step"], failed["peer"]) == ("failed", "party1")
    assert failed["exit_code"] in (6, 7)
    await site.start("party1")
    assert (await steps(page, SAMPLE.read_bytes()))[-1]["step"] == "answered"


async def test_a_page_that_is_closed_gives_its_run_up(site):
    async with site.client() as client:
        await client.upload(derm_model(), "derm")
        finishing = asyncio.Event()

        async def never(prepared):
            finishing.set()
            await asyncio.sleep(60)

        client.finish = never
        async with served(client) as browser:
            response = await browser.post("/api/predict", data=SAMPLE.read_bytes(), headers=AUTHORISED)
            await finishing.wait()
            assert any(site.servers["party0"].jobs)
            response.close()
            await site.settled()


async def test_a_model_of_other_classes(site):
    async with site.client() as client:
        await client.upload(other_model(INTERFACE), "other")
        async with served(client, "other") as browser:
            *rest, failed = await steps(browser, SAMPLE.read_bytes())
    assert [step["step"] for step in rest] == ["seen"], "refused before anything is sent"
    assert failed["error"] == "ShapeError"
    assert "not 7 classes per input" in failed["message"]
    with pytest.raises(ShapeError, match="not 7 classes per input"):
        await served_by_command(site, model="other")


def other_model(interface=NOTHING_SAID):
    """Of results that are no classes: two for each row of each channel."""
    architecture = Sequential({"flat": Linear(28, 2)}).architecture((3, 28, 28))
    return Model(architecture, {n: np.zeros(s) for n, s in architecture.parameters.items()}, interface)


@pytest.mark.parametrize(
    ("interface", "complaint"),
    [
        (NOTHING_SAID, "does not say how a photograph becomes its input"),
        (Interface(ArrayInput((3, 28, 28), -1, 1), CLASSES), "takes arrays, not photographs"),
        (Interface(INPUT), "does not say what its results are called"),
    ],
)
async def test_a_model_that_no_page_can_be_made_of(site, interface, complaint):
    async with site.client() as client:
        await client.upload(other_model(interface), "other")
        async with served(client, "other") as browser:
            (failed,) = await steps(browser, SAMPLE.read_bytes())
            async with browser.get("/api/about", headers=AUTHORISED) as response:
                assert response.status == 502
                about = await response.json()
        for said in (failed, about):
            assert (said["step"], said["error"]) == ("failed", "UsageError")
            assert complaint in said["message"]
    with pytest.raises(UsageError, match=complaint):
        await served_by_command(site, model="other")


async def test_another_model_says_itself_what_the_page_shows(site):
    """A grey picture that is wider than high, of classes without codes."""
    takes = ImageInput(2, 3, channels="L", subject="a <b>cat</b>")
    architecture = Sequential({"flat": Flatten(), "out": Linear(6, 2)}).architecture(takes.shape)
    weights = {"out.weight": np.full((2, 6), 0.25), "out.bias": np.array([0.0, 1.0])}
    said = Interface(takes, Classes((Label("no"), Label("yes")), "sigmoid"), "A toy.")
    model = Model(architecture, weights, said)
    picture = png(12)
    async with site.client() as client:
        await client.upload(model, "toy")
        async with served(client, "toy") as browser:
            async with browser.get("/api/about", headers=AUTHORISED) as response:
                assert (await response.json())["subject"] == "a <b>cat</b>"
            seen, _, masked, answered = await steps(browser, picture)
    assert (seen["height"], seen["width"], seen["balanced"]) == (2, 3, False)
    assert set(base64.b64decode(seen["image"])) == {90}
    assert seen["warnings"] == ["the photograph is of one colour: there is nothing in it to be recognised"]
    for key in ("mask", "masked"):
        noise = np.frombuffer(base64.b64decode(masked[key]), np.uint8).reshape(2, 3, 3)
        assert (noise == noise[..., :1]).all()
    exact = 1 / (1 + np.exp(-model.plain(np.full((1, 1, 2, 3), 90 / 255 * 2 - 1))[0]))
    assert [one["code"] for one in answered["classes"]] == ["no", "yes"]
    assert [one["probability"] for one in answered["classes"]] == pytest.approx(exact, abs=1e-3)
    assert (answered["notice"], answered["activation"]) == ("A toy.", "sigmoid")


async def test_a_bug_of_ours_says_nothing_of_the_photograph(site, monkeypatch, caplog):
    async def broken(*_):
        raise ValueError("0.123456")
        yield

    monkeypatch.setattr(server, "predict", broken)
    async with site.client() as client, served(client) as browser:
        (failed,) = await steps(browser, SAMPLE.read_bytes())
    assert failed["error"] == "InternalError"
    assert "0.123456" not in failed["message"]


async def test_another_process_with_the_same_key(site):
    """It is said what to do: nothing goes any more until the page is started again."""
    async with site.client() as client:
        await client.upload(derm_model(), "derm")
        async with served(client) as browser, site.client() as other:
            await other.models()
            *_, failed = await steps(browser, SAMPLE.read_bytes())
    assert failed["error"] == "RemoteError"
    assert "another process has connected with the key of clinic" in failed["message"]
    assert "end it and start tessera clinic again" in failed["advice"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EncodingError("the photograph is damaged"), ""),
        (PeerLost("party1", "frozen"), "tell whoever runs party1"),
        (PeerError("party1", "odd"), "tell whoever runs party1"),
        (MacCheckError("somebody cheated"), "Do not go on"),
        (NotPermitted("no"), "tessera allow"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_to_do(error, expected):
    said = advice(error, ClinicPage.command, ClinicPage.advice)
    assert expected in said
    assert bool(said) == bool(expected)
    assert "{" not in said


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "names", "expected"),
    [
        ("127.0.0.1:8080", [], ("127.0.0.1", 8080, LOCAL)),
        ("localhost:0", [], ("localhost", 0, LOCAL)),
        ("[::1]:8080", ["clinic.test"], ("::1", 8080, LOCAL | {"clinic.test"})),
        ("127.0.0.9:8080", [], ("127.0.0.9", 8080, LOCAL | {"127.0.0.9"})),
        ("0.0.0.0:8080", ["clinic.test"], ("0.0.0.0", 8080, frozenset({"clinic.test"}))),
    ],
)
def test_where_it_is_served(listen, names, expected, capsys):
    assert served_page.check_address(options(listen=listen, host_names=names)) == expected
    assert ("not encrypted" in capsys.readouterr().err) == (listen == "0.0.0.0:8080")


@pytest.mark.parametrize(
    ("listen", "complaint"),
    [
        ("8080", "is not host:port"),
        ("127.0.0.1:x", "is not host:port"),
        ("127.0.0.1:70000", "out of range"),
        ("0.0.0.0:8080", "not encrypted: put a proxy with TLS"),
        ("192.0.2.1:8080", "not encrypted: put a proxy with TLS"),
    ],
)
def test_where_it_is_not_served(listen, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        served_page.check_address(options(listen=listen))


def test_the_address_to_open():
    assert served_page.url_of(("127.0.0.1", 8080), [], "abc") == "http://127.0.0.1:8080/#abc"
    assert served_page.url_of(("::1", 8080, 0, 0), ["x.test"], "abc") == "http://[::1]:8080/#abc"
    assert served_page.url_of(("0.0.0.0", 8080), ["x.test"], "abc") == "https://x.test/#abc"


def options(**changes):
    defaults = {"listen": "127.0.0.1:0", "host_names": [], "timeout": 2.0, "model": "derm", "open": False}
    return argparse.Namespace(**{**defaults, **changes})


async def served_by_command(site, **changes):
    async with site.client("clinic") as client:
        await command.clinic(client, options(**changes))


async def test_without_the_package(site, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'tessera-mpc\[clinic\]'"):
        await served_by_command(site)


async def test_what_is_wrong_is_said_before_anybody_has_a_photograph(site):
    async with site.client() as client:
        await client.upload(derm_model(), "derm")
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    with pytest.raises(ConfigurationError, match="give another --listen"):
        await served_by_command(site, listen=f"127.0.0.1:{port}")
    taken.close()
    await site.stop("party1")
    with pytest.raises(PeerUnavailable, match="party1"):
        await served_by_command(site, timeout=0.5)
