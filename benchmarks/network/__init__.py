"""Hosts of their own on one machine, joined by links that delay, throttle, lose and part."""
