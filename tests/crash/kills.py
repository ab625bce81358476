"""Kills the commands of a device at every file-system call that changes the store, and looks at what is left.

    python tests/crash/kills.py                     every point of every command (`make proof`)
    python tests/crash/kills.py --some 8            8 points of each command
    python tests/crash/kills.py --errors            errors (ENOSPC, EIO, EROFS) instead of kills
    python tests/crash/kills.py --replay ID         one point again

Prints one JSON object; exits with 1 where a point failed. Needs strace.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from base_bundle import base_bundle
from calls import missing_tools
from faults import ERRORS, KILL, Harness, replayed, report, strike_all
from forks import load_everything
from situations import COMMANDS, Situations


def main() -> int:
    """Run with the options above."""
    options = _options()
    if why := missing_tools():
        print(why, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-kills-", dir=options.folder) as name:
        folder = Path(name).resolve()
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)  # where a report of a bug would go
        load_everything()
        seed = int(options.replay.split(":")[3]) if options.replay else options.seed
        situations = Situations(folder / "situations", base_bundle(options.bundle), seed)
        harness = Harness(situations, folder / "run", folder / "run", installed=options.installed)
        if options.replay:
            point = replayed(harness, options.replay)
            print(f"{point.id}: {point.call.what}: the state is {harness.strike(point)}")
            return 0
        commands = [command for command in COMMANDS if command.name in (options.command or [command.name])]
        faults = ERRORS if options.errors else (KILL,)
        found = strike_all(
            harness, commands, faults, some=options.some, scratch=options.some is None and not options.no_scratch,
            tell=lambda line: print(line, file=sys.stderr, flush=True),
        )  # fmt: skip
        reports = list(folder.glob("edge-cmcl-report-*"))
        result = {"seed": seed, **report(found), "bug_reports": len(reports)}
        print(json.dumps(result, indent=2))
        return 1 if result["failed"] or reports else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", action="append", choices=[command.name for command in COMMANDS])
    parser.add_argument("--some", type=int, help="how many points of each command")
    parser.add_argument("--no-scratch", action="store_true", help="leave out calls on work in progress")
    parser.add_argument("--errors", action="store_true", help="let the calls fail instead of killing the process")
    parser.add_argument("--installed", action="store_true", help="run the installed command, its start included")
    parser.add_argument("--seed", type=int, default=0, help="of the data and of the choice of points")
    parser.add_argument("--replay", help="the id of a point")
    parser.add_argument("--bundle", type=Path, help="bundle to install; by default one is made in .bench/")
    parser.add_argument("--folder", help="where to work; by default the temporary folder")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
