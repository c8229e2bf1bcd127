"""The manual page ``tessera.1``, made of the command's own parsers: ``python deploy/manual.py [--check]``.

It is installed with the package, where ``man tessera`` finds it; CI checks that it is what the parsers say.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("man") / "tessera.1"


def manual() -> str:
    """All commands in one page, without the day on which it was made."""
    from argparse_manpage.manpage import Manpage

    from parties.commands.command_line import whole_parser

    parser = whole_parser()
    parser._manpage = []  # type: ignore[attr-defined]  # where argparse-manpage looks for sections of one's own
    page = Manpage(parser, format="single-commands-section")
    page.description = "secure multi-party computation on secret-shared tensors"
    return re.sub(r'\A(\.TH \S+ "1") "[^"]*" "tessera" "[^"]*"', r'\1 "" "tessera" "User commands"', str(page))


def main() -> int:
    """The exit code: 1 if the page is not what it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    options = parser.parse_args()
    made = manual()
    if not options.check:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(made, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == made:
        return 0
    print(f"{PAGE.name} is not what the commands say of themselves: python deploy/manual.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
