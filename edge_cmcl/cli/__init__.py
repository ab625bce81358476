"""The command line, `edge-cmcl`."""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command in `sys.argv` and exit with its code; Ctrl-C ends with 130 even before everything is loaded."""
    try:
        from edge_cmcl.cli.app import main as run
    except KeyboardInterrupt:
        _interrupted()
    run()


def _interrupted() -> NoReturn:
    """Say what `failures.describe` says of an interruption, with nothing loaded that it needs."""
    from json import dumps

    message = "interrupted before the end; what was there before is intact"
    if "--json" in sys.argv:
        known = dict.fromkeys(("expected", "got", "to_do"), "")
        print(dumps({"error": {"type": "Interrupted", "message": message, **known, "exit_code": 130}}))
    else:
        print(f"edge-cmcl: {message}", file=sys.stderr)
    sys.exit(130)
