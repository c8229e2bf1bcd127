"""``tessera clinic`` in a real headless Chromium: a photograph dropped, shares seen, an answer and its bill."""

from __future__ import annotations

import base64
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from nn.derm import CLASS_CODES, CLASS_NAMES, class_probabilities, load_image, samples
from nn.derm.lesion.model import lesion_model
from nn.derm.lesion.model import shown as lesion_samples
from nn.derm.lesion.photographs import INPUT
from nn.derm.model import derm_model
from parties import Client, LocalCluster, Settings
from tests.end_to_end.pages import SECOND, UNNAMED, opened, served


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    settings = Settings(threads=1, peer_timeout=1.5, round_timeout=20)
    with LocalCluster(2, clients=("clinic", "company"), settings=settings) as running:
        with Client(running.cluster, running.client_keys["company"]) as company:
            company.upload(derm_model(), "derm")
            company.allow("derm", "clinic")
        yield running


@pytest.fixture(scope="module")
def address(cluster: LocalCluster) -> Iterator[str]:
    with served(cluster, "clinic") as printed:
        yield printed


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as page:
        expect(page.locator("#about")).to_contain_text("2 parties: party0, party1")
        yield page


def shown(page: Page) -> dict[str, float]:
    """Probabilities on the page, by class."""
    expect(page.locator("#bill")).to_be_visible()
    rows = page.locator("#classes li").all()
    return {str(row.get_attribute("data-code")): float(str(row.get_attribute("data-probability"))) for row in rows}


def expected(path: Path) -> dict[str, float]:
    probabilities = class_probabilities(derm_model().plain(load_image(path)[None]))[0]
    return dict(zip(CLASS_CODES, map(float, probabilities), strict=True))


def pixels(page: Page, panel: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """What the picture in a panel shows: RGB."""
    return drawn(page.locator(f"#{panel} canvas").first)[..., :3]


def drawn(canvas: Locator) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """RGBA, rows first."""
    encoded = canvas.evaluate("canvas => canvas.toDataURL('image/png')").partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGBA"))


def drop(page: Page, path: Path) -> None:
    """As a person who lets a file go over the zone."""
    page.evaluate(
        """([encoded, name]) => {
            const bytes = Uint8Array.from(atob(encoded), c => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], name, {type: "image/png"}));
            for (const kind of ["dragenter", "dragover", "drop"])
                document.getElementById("drop").dispatchEvent(
                    new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
        }""",
        [base64.b64encode(path.read_bytes()).decode(), path.name],
    )


def test_a_photograph_that_is_chosen(page: Page) -> None:
    path = samples()[0].path
    page.locator("#file").set_input_files(path)
    assert shown(page) == pytest.approx(expected(path), abs=1e-3)
    first = page.locator("#classes li").first
    best = max(expected(path).items(), key=lambda item: item[1])
    expect(first).to_contain_text(CLASS_NAMES[CLASS_CODES.index(best[0])])
    expect(first.locator(".figure")).to_have_text(f"{100 * best[1]:.1f} %")
    expect(page.locator("#answer")).to_contain_text("Not a medical device")
    expect(page.locator("#choose-title")).to_have_text("A photograph of a skin lesion")
    expect(page.locator("#seen")).to_contain_text("28 × 28 pixels, colours balanced. Known here only.")
    # The picture that is shown is the one that was chosen.
    size = page.locator("#photograph").evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert size == [28, 28]


def test_a_photograph_that_is_dropped_and_another_one(page: Page) -> None:
    for sample in samples()[1:3]:
        drop(page, sample.path)
        expect(page.locator("#status")).to_contain_text("Done")
        assert shown(page) == pytest.approx(expected(sample.path), abs=1e-3)


@pytest.mark.slow
def test_the_lesion_network_answers_a_photograph_of_any_size(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "photograph.png"
    with Image.open(lesion_samples()[5].path) as picture:
        picture.resize((640, 480), Image.Resampling.BICUBIC).save(path)
    with LocalCluster(2, clients=("clinic", "company"), settings=Settings(threads=1)) as cluster:
        with Client(cluster.cluster, cluster.client_keys["company"]) as company:
            company.upload(lesion_model(), "lesion")
            company.allow("lesion", "clinic")
        with served(cluster, "clinic") as address, contextlib.closing(browser.new_page()) as page:
            page.set_default_timeout(60 * SECOND)
            page.goto(address)
            page.locator("#file").set_input_files(path)
            expect(page.locator("#bill")).to_be_visible(timeout=60 * SECOND)
            found = shown(page)
            expect(page.locator("#seen")).to_contain_text("128 × 128 pixels")
            # What is seen is the photograph as one knows it, and not noise.
            visible = INPUT.visible(INPUT.load(path))
            assert np.abs(pixels(page, "seen").astype(int) - visible).max() <= 1
            for panel in ("mask", "masked"):
                noise = pixels(page, panel)
                assert abs(np.corrcoef(noise.ravel(), visible.ravel())[0, 1]) < 0.05
    probabilities = class_probabilities(lesion_model().plain(INPUT.load(path)[None]))[0]
    assert found == pytest.approx(dict(zip(CLASS_CODES, map(float, probabilities), strict=True)), abs=2e-3)


def test_what_is_seen_to_leave_is_noise(page: Page) -> None:
    path = samples()[4].path
    drop(page, path)
    shown(page)
    seen = np.moveaxis((load_image(path) + 1) / 2 * 255, 0, -1)
    assert np.abs(pixels(page, "seen") - seen).max() <= 1
    for panel in ("mask", "masked"):
        noise = pixels(page, panel).astype(float)
        counts = np.bincount(pixels(page, panel).ravel() >> 5, minlength=8)
        assert np.abs(counts - 294).max() < 6 * 16, "as often dark as bright"
        neighbours = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
        with_the_photograph = np.corrcoef(noise.ravel(), seen.ravel())[0, 1]
        assert abs(neighbours) < 0.12
        assert abs(with_the_photograph) < 0.12
    assert not np.array_equal(pixels(page, "mask"), pixels(page, "masked"))
    for panel in ("seen", "mask", "masked"):
        tall = (drawn(page.locator(f"#{panel} .histogram"))[..., 3] > 0).sum(axis=0)
        # A photograph's brightness has a peak; a mask's values are spread evenly.
        assert (tall.max() > 3 * np.median(tall)) == (panel == "seen")


def test_a_photograph_that_is_hardly_one(page: Page, tmp_path: Path) -> None:
    Image.new("RGB", (90, 20), "grey").save(tmp_path / "flat.png")
    drop(page, tmp_path / "flat.png")
    shown(page)
    first, second = page.locator("#warnings li").all()
    expect(first).to_have_text(
        "The photograph has 90 by 20 pixels, and most is cut off: only the central 20 by 20 are used."
    )
    expect(second).to_contain_text("The photograph is of one colour")
    drop(page, samples()[0].path)
    shown(page)
    expect(page.locator("#warnings")).to_be_hidden()


def test_the_bill(page: Page) -> None:
    drop(page, samples()[0].path)
    expect(page.locator("#bill caption")).to_have_text("2 parties, semi-honest security: parties follow the protocol.")
    offline, online = page.locator("#bill-rows tr").all()
    expect(offline).to_contain_text(re.compile(r"Offline.*ms.*3\.35 MB by the dealer", re.DOTALL))
    expect(online).to_contain_text(
        re.compile(r"Online.*ms.*8.*197\.1 kB by each party.*37\.6 kB sent, 0\.1 kB received", re.DOTALL)
    )


def test_by_keyboard_and_without_sight(page: Page) -> None:
    # Asked for well before the key: what is asked for along with it may come too late.
    page.on("filechooser", lambda _: None)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(samples()[0].path)
    shown(page)
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.get_by_label("Drop a photograph here").count() == 1
    assert page.evaluate(UNNAMED) == []
    expect(page.get_by_role("status")).to_contain_text("Done")
    headings = [heading.text_content() for heading in page.locator("h1, h2").all()]
    assert len(headings) == 5


def test_in_a_narrow_window_nothing_is_cut_off(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    drop(page, samples()[0].path)
    shown(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_what_is_no_photograph(page: Page) -> None:
    page.locator("#file").set_input_files(
        {"name": "letter.png", "mimeType": "image/png", "buffer": b"Dear colleague"},
    )
    expect(page.get_by_role("alert")).to_have_text("The photograph is not a JPEG or PNG image")
    expect(page.locator("#answer")).to_be_hidden()
    drop(page, samples()[0].path)
    shown(page)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_file_that_is_too_large(page: Page) -> None:
    """Said at once: a browser would hand all of it over before it listened to the server's answer."""
    page.evaluate(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(20_000_001)], "scan.png", {type: "image/png"}));
            const input = document.getElementById("file");
            input.files = data.files;
            input.dispatchEvent(new Event("change", {bubbles: true}));
        }"""
    )
    expect(page.get_by_role("alert")).to_have_text(
        "The photograph is larger than 20 MB: make the picture smaller first"
    )
    expect(page.locator("#status")).to_have_text("")
    drop(page, samples()[0].path)
    shown(page)


def test_an_answer_that_breaks_off(page: Page) -> None:
    page.route("**/api/predict", lambda route: route.fulfill(body='{"step": "prepared"}\n'))
    drop(page, samples()[0].path)
    expect(page.get_by_role("alert")).to_contain_text("Tessera clinic on this computer does not answer")
    expect(page.get_by_role("alert")).to_contain_text("Start it again")


def test_a_party_that_is_killed_and_back(page: Page, cluster: LocalCluster) -> None:
    cluster.processes["party1"].kill()
    cluster.processes["party1"].wait()
    drop(page, samples()[0].path)
    expect(page.get_by_role("alert")).to_contain_text("arty1")
    expect(page.get_by_role("alert")).to_contain_text("ell whoever runs party1")
    cluster.start_process("party1")
    drop(page, samples()[0].path)
    assert shown(page) == pytest.approx(expected(samples()[0].path), abs=1e-3)


def test_without_the_token(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address.partition("#")[0])
    expect(page.get_by_role("alert")).to_contain_text("Open the address that tessera clinic printed, all of it")
    page.close()


def test_what_another_page_can_do(browser: Browser, address: str) -> None:
    """From another origin: no answer can be read, and no frame made."""
    page = browser.new_page()
    page.route(
        "http://evil.example/", lambda route: route.fulfill(body="<title>evil</title>", content_type="text/html")
    )
    page.goto("http://evil.example/")
    origin, token = address.split("/#")
    for headers in ({}, {"Authorization": f"Bearer {token}"}):
        outcome = page.evaluate(
            "([url, headers]) => fetch(url, {headers}).then(r => r.text(), () => 'refused')",
            [f"{origin}/api/about", headers],
        )
        assert outcome == "refused"
    page.evaluate("url => { document.body.innerHTML = `<iframe src='${url}'></iframe>` }", f"{origin}/")
    page.wait_for_timeout(300)
    framed = [frame for frame in page.frames if frame != page.main_frame]
    assert all("Tessera" not in frame.content() for frame in framed)
    page.close()
