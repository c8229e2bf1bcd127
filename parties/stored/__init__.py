"""Stored models: shares at the parties, masks at the dealer, versions that change at once, and who may use them."""
