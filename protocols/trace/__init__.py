"""How programs are written: secret tensors, whose operations are recorded and not run."""
