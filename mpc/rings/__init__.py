"""Algebras that the elements of tensors live in: the field p = 2^61 - 1, its kernels, and the PRG that samples it."""
