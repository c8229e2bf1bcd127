"""``python -m tessera``: the command line."""

from parties.commands.command_line import script

if __name__ == "__main__":
    script()
