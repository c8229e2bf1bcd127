"""The command ``tessera``, and ``python -m tessera``: it sees to Ctrl-C before it loads anything.

That takes a second or two, in which `KeyboardInterrupt` would come out of whatever is being loaded, with its traceback,
or be taken there for a package that is missing.
"""

import os
import signal
import sys

INTERRUPTED = (
    b'{"error": "KeyboardInterrupt", "code": 130, "member": null, "message": "interrupted",'
    b' "advice": "Run it again; an upload goes on where it was."}\n'
)
"""As `parties.commands.command_line` says it, once that is loaded."""


def script() -> None:
    """The console script."""
    # Else we were started with it ignored, as by nohup.
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:
        signal.signal(signal.SIGINT, _leave)
    from parties.commands.command_line import main

    def loaded() -> None:
        if heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    code = main(loaded=loaded)
    # What there was to undo has been undone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _leave(*_: object) -> None:
    """Nothing has begun."""
    if "--json" in sys.argv:
        os.write(1, INTERRUPTED)
    os._exit(130)


if __name__ == "__main__":
    script()
