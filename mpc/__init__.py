"""The base of Tessera: rings, fixed point, sharing, programs and costs.  No input or output.

Shows nothing of itself: a tensor is written with ``protocols``, and what is here is imported from its own module.
"""

__all__: list[str] = []


def __dir__() -> list[str]:
    return __all__
