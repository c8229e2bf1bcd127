"""Tessera: secure multi-party computation on secret-shared tensors.

>>> import tessera as ts
>>> with ts.LocalCluster(parties=3) as cluster, ts.Client(cluster) as client:
...     x = client.share([1.0, 2.0])
...     print(client.reveal(x * x))

All that a program of one's own needs is here, every error included; ``ts.nn`` has the layers.  PyTorch is imported by
``from_torch`` alone, when it is called.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tessera import face
    from tessera.face import *  # noqa: F403 - the names of ``face.__all__``

    __all__: list[str] = []
    __all__ += face.__all__
else:

    def __getattr__(name: str) -> object:
        # At the first use: the command ``tessera`` imports this package before it can see to Ctrl-C.
        return getattr(importlib.import_module("tessera.face"), name)

    def __dir__() -> list[str]:
        return list(importlib.import_module("tessera.face").__all__)
