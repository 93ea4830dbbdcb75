"""The command line ``causalsat``: commands, and the one line with which ``--json`` answers."""

from causalsat.cli.commands import app, main

__all__ = ["app", "main"]
