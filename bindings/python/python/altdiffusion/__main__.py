"""Runs the command: `python -m altdiffusion`."""

from ._command import main

main()
