"""The same algebras on torch's tensors, and so on a graphics card: other objects behind the same names.

What goes over a wire is the same to the last bit, so a party that computes on a card and one that does not work
together, and no protocol knows.  Seeds are expanded on the host, by its AES, and copied.
"""

from mpc.rings.on_torch.device import memory_on, rings_on

__all__ = ["memory_on", "rings_on"]
