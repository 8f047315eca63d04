#!/usr/bin/env python3
"""Lets real clients use a running `altdiffusion serve`, and compares what they get with the command's own output.

    clients.py http://127.0.0.1:7860 --command target/debug/altdiffusion [--key KEY] [--only openai,webuiapi]

Prints a line for each check, and exits with 1 if one failed. A client that is not installed is named: SKIPPED. The
clients are `pip install openai webuiapi schemathesis`, and curl. The server must serve the model inside the program,
and allow 200 steps; for the document alone (--only openapi), better start it with small limits.
"""

import argparse
import importlib
import sys

# Checks leave no files beside them.
sys.dont_write_bytecode = True

from client_checks.harness import Report, Server  # noqa: E402

CLIENTS = {
    "openai": "client_checks.openai_package",
    "webuiapi": "client_checks.webuiapi_package",
    "immich": "client_checks.immich_by_curl",
    "openapi": "client_checks.openapi_document",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="such as http://127.0.0.1:7860")
    parser.add_argument("--command", required=True, help="the program, whose output is compared")
    parser.add_argument("--key", help="the server's API key")
    parser.add_argument("--only", default=",".join(CLIENTS), help="clients by name, with commas between them")
    arguments = parser.parse_args()
    server = Server(arguments.address.rstrip("/"), arguments.command, arguments.key)
    report = Report()
    for name in arguments.only.split(","):
        try:
            client = importlib.import_module(CLIENTS[name])
        except ModuleNotFoundError as error:
            report.skipped(name, f"the Python package {error.name} is not installed")
            continue
        client.check(server, report)
    sys.exit(report.end())


if __name__ == "__main__":
    main()
