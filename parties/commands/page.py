"""Commands that serve a web page on this computer: where, for whom, and until when."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import signal
import sys
import webbrowser
from typing import TYPE_CHECKING

from mpc.errors import ConfigurationError
from parties.members.cluster import address_fault
from parties.pages.loopback import LOCAL, is_local

if TYPE_CHECKING:
    from parties.pages.page import Page

TOKEN_BYTES = 24


def page_arguments(parser: argparse._ActionsContainer) -> None:
    """Where a page is served."""
    parser.add_argument(
        "--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="where to serve it (default: %(default)s)"
    )
    parser.add_argument(
        "--name", action="append", default=[], dest="host_names", metavar="HOST",
        help="name that browsers use, behind a proxy; may be repeated",
    )  # fmt: skip
    parser.add_argument("--open", action="store_true", help="open it in a browser")


def check_page(command: str, options: argparse.Namespace) -> None:
    """Raises ConfigurationError where no page can be served: for want of a package, or for an address."""
    try:
        import aiohttp  # noqa: F401 - an extra
    except ImportError:
        raise ConfigurationError(f"{command} needs aiohttp: pip install 'tessera-mpc[clinic]'") from None
    check_address(options)


def check_address(options: argparse.Namespace) -> tuple[str, int, frozenset[str]]:
    """Host and port to listen on, and the names that requests may be for.  Raises ConfigurationError."""
    listen, names = options.listen, options.host_names
    host, _, port = listen.rpartition(":")
    if fault := address_fault(listen) if port != "0" else address_fault(f"{host}:1"):
        raise ConfigurationError(f"--listen: {fault}")
    host = host.strip("[]")
    if is_local(host):
        return host, int(port), LOCAL | {host, *names}
    if not names:
        raise ConfigurationError(
            f"--listen {listen}: others can reach this address, and the page is not encrypted: put a proxy with TLS "
            "before it, and give the name that browsers will use with --name"
        )
    print(f"tessera: the page at {listen} is not encrypted: let nobody but a proxy with TLS reach it", file=sys.stderr)
    return host, int(port), frozenset(names)


async def serve(page: Page, options: argparse.Namespace) -> None:
    """Serve it until SIGINT or SIGTERM, and print where.  Raises ConfigurationError for an address that will not do."""
    from aiohttp import web

    host, port, names = check_address(options)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    runner = page.runner(token, names)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigurationError(
                f"the page cannot be served at {options.listen} ({error.strerror}): give another --listen HOST:PORT"
            ) from None
        url = url_of(runner.addresses[0], options.host_names, token)
        print(json.dumps({"url": url}) if options.json else url, flush=True)
        if options.open:
            webbrowser.open(url)
        await stop.wait()
    finally:
        await runner.cleanup()


def url_of(address: tuple[str, int], names: list[str], token: str) -> str:
    """What to open.  After the #, where it is never sent: the token."""
    host, port = address[:2]
    if names and not is_local(host):
        return f"https://{names[0]}/#{token}"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/#{token}"
