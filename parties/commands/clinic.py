"""``tessera clinic``: the page on which photographs are looked at."""

from __future__ import annotations

import argparse

from parties.client.async_client import AsyncClient
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client
from parties.commands.chosen import chosen_model
from parties.commands.objective import add_objective_argument
from parties.commands.page import check_page, page_arguments, serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera clinic``."""
    parser.add_argument("--model", help="name of a model stored on the parties (default: the only one there)")
    page_arguments(parser)
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
    check_page("tessera clinic", options)
    from parties.pages.clinic import ClinicPage
    from parties.pages.prediction import what_it_says

    async with client:
        model = await chosen_model(client, options.model)
        what_it_says(model)
        model.description.check()
        await serve(ClinicPage(client, model.name), options)
    return 0
