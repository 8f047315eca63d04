"""Puts a server under load, and measures what it does; see `scripts/measure-server.py`."""
