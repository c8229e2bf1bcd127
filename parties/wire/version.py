"""Which release of Tessera this is: members of one cluster have the same."""

import functools
import importlib.metadata


@functools.cache
def package_version() -> str:
    """Version of the installed distribution, or ``"unreleased"`` when run from a source tree."""
    try:
        return importlib.metadata.version("tessera-mpc")
    except importlib.metadata.PackageNotFoundError:
        return "unreleased"
