"""Load for a server, and what it does with it; see `scripts/measure-server.py`."""
