"""``tessera clinic``, from its options to the end of its process."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import signal
import sys
import webbrowser

from mpc.errors import ConfigurationError
from parties.client.async_client import AsyncClient
from parties.clinic.loopback import LOCAL, is_local
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client
from parties.commands.chosen import chosen_model
from parties.commands.objective import add_objective_argument
from parties.members.cluster import address_fault

TOKEN_BYTES = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera clinic``."""
    parser.add_argument("--model", help="name of a model stored on the parties (default: the only one there)")
    parser.add_argument(
        "--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="where to serve it (default: %(default)s)"
    )
    parser.add_argument(
        "--name", action="append", default=[], help="host name that browsers use, behind a proxy; may be repeated"
    )
    parser.add_argument("--open", action="store_true", help="open it in a browser")
    add_objective_argument(parser)
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object: where it is, or what failed")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(clinic, options)


async def clinic(client: AsyncClient, options: argparse.Namespace) -> int:
    """Serve the page until SIGINT or SIGTERM.

    Raises ConfigurationError for an address that will not do or a package that is missing, and what ``AsyncClient``
    raises when the servers cannot be reached, or have no such model for us, or UsageError for one that takes no
    photographs, or whose results are not the classes that it names: better now than with one in hand.
    """
    try:
        from aiohttp import web

        from parties.clinic.prediction import what_it_says
        from parties.clinic.server import ClinicPage
    except ImportError:
        raise ConfigurationError("tessera clinic needs aiohttp: pip install 'tessera-mpc[clinic]'") from None
    host, port, names = _address(options.listen, options.name)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with client:
        model = await chosen_model(client, options.model)
        what_it_says(model)
        model.description.check()
        token = secrets.token_urlsafe(TOKEN_BYTES)
        runner = ClinicPage(client, model.name).runner(token, names)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            try:
                await site.start()
            except OSError as error:
                raise ConfigurationError(
                    f"the page cannot be served at {options.listen} ({error.strerror}): give another --listen HOST:PORT"
                ) from None
            url = _url(runner.addresses[0], options.name, token)
            print(json.dumps({"url": url}) if options.json else url, flush=True)
            if options.open:
                webbrowser.open(url)
            await stop.wait()
        finally:
            await runner.cleanup()
    return 0


def _address(listen: str, names: list[str]) -> tuple[str, int, frozenset[str]]:
    """Host and port to listen on, and the names that requests may be for.  Raises ConfigurationError."""
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


def _url(address: tuple[str, int], names: list[str], token: str) -> str:
    """What to open.  After the #, where it is never sent: the token."""
    host, port = address[:2]
    if names and not is_local(host):
        return f"https://{names[0]}/#{token}"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/#{token}"
