"""``tessera bench peers``: the same work by other systems, on the same machine in the same run.

Every peer lives in a virtual environment of its own (``installing``) and is driven by a script that runs there
(``runners``, never imported by this package) through JSON lines; ``comparison`` takes turns.
"""
