"""The command line, `edge-cmcl`."""

from edge_cmcl.cli.app import main

__all__ = ["main"]
