"""``tessera bench workers``: what more workers a party are worth, where computing is replaced by waiting."""
