"""The command `altdiffusion`, which is a function of the extension module."""

import os
import sys

from ._altdiffusion import run_command


def main() -> None:
    """Runs the command with the arguments of this process, and ends it with the command's exit code."""
    try:
        # Nothing here may start a thread before.
        code = run_command(["altdiffusion", *sys.argv[1:]])
    except KeyboardInterrupt:
        code = 130
    # Other threads may still compute, which nobody waits for in the native command either.
    os._exit(code)
