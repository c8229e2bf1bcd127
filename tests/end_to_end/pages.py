"""What tests of pages share: the command that serves one, and a browser that has it open."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator

from playwright.sync_api import Browser, Page, expect

from parties import LocalCluster

SECOND = 1000.0
expect.set_options(timeout=60 * SECOND)

UNNAMED = """() => [...document.querySelectorAll("img, canvas, svg, progress, input, button, section")].filter(
    element => !(element.alt || element.ariaLabel || element.labels?.length || element.getAttribute("aria-labelledby")
      || element.tagName === "BUTTON" && element.textContent)
).map(element => element.outerHTML)"""
"""What who does not see the page is not told of."""


@contextlib.contextmanager
def served(cluster: LocalCluster, *words: str, client: str = "clinic") -> Iterator[str]:
    """What ``tessera`` with these words, a process of its own, prints."""
    command = [sys.executable, "-m", "parties.commands.command_line", *words, "--listen", "127.0.0.1:0"]
    command += ["--cluster", str(cluster.path), "--key", str(cluster.key_path(client))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=60)
        assert (process.returncode, rest, errors) == (0, "", "")


@contextlib.contextmanager
def opened(browser: Browser, address: str) -> Iterator[Page]:
    """At its end, nothing was complained of and nothing asked for elsewhere."""
    page = browser.new_page()
    page.set_default_timeout(60 * SECOND)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    yield page
    page.close()
    origin = address.partition("/#")[0]
    assert complaints == []
    assert requests
    assert all(url.startswith((f"{origin}/", f"blob:{origin}/")) for url in requests), requests
    assert not any(address.partition("#")[2] in url for url in requests), "the token is in no address that is sent"
