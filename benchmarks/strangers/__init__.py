"""``tessera bench strangers``: what honest clients' work takes while others attack, and whether that is as promised."""
