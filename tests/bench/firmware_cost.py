"""What the firmware library costs on a microcontroller: instructions per byte on emulated boards, size, and stack.

python tests/bench/firmware_cost.py            all tables
python tests/bench/firmware_cost.py --json     the same figures

Instructions are counted by time under `qemu-system-arm -icount shift=6`, where each takes 64 ns. They are no cycles: a
Cortex-M3 takes one to two cycles for most, a Cortex-M7 less than one. Stack is the deepest path through the library
(gcc -fcallgraph-info=su), without what a port's callbacks take.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LIBRARY = ROOT / "firmware_bridge" / "c"
PORT = LIBRARY / "ports" / "mps2"
BOARDS = {
    "an385": ("Cortex-M3", ["-mcpu=cortex-m3"]),
    "an386": ("Cortex-M4", ["-mcpu=cortex-m4"]),
    "an500": ("Cortex-M7", ["-mcpu=cortex-m7"]),
}
FLAGS = [
    "-std=c99",
    "-mthumb",
    "-ffp-contract=off",
    "-ffunction-sections",
    "-fdata-sections",
    f"-I{LIBRARY}",
    f"-I{PORT}",
]
NS_PER_INSTRUCTION, NS_PER_CYCLE = 64, 40
ENTRIES = {
    "ec_stream_push": "in the interrupt",
    "ec_node_poll": "main loop: send",
    "ec_node_receive": "main loop: take, models included",
    "ec_slots_open": "at start",
}


def run(*command: str | Path, cwd: Path | None = None) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout


def library_sources() -> list[Path]:
    """Return the sources of the bridge's own parts; tests/bridge/test_micro_board.py measures the micro model's."""
    return [source for source in sorted(LIBRARY.glob("*.c")) if not source.name.startswith("ec_micro")]


def instructions(machine: str, optimise: str, folder: Path) -> dict[str, float]:
    """Return instructions per byte by what is measured; `idle_poll` per call."""
    elf, out = folder / "cost.elf", folder / "out"
    sources = [ROOT / "tests" / "firmware" / "cost_board.c", PORT / "board.c", PORT / "startup.c", *library_sources()]
    link = ["-nostartfiles", "--specs=nano.specs", "-Wl,--gc-sections", f"-T{PORT / 'mps2.ld'}"]
    run("arm-none-eabi-gcc", *FLAGS, optimise, *BOARDS[machine][1], *sources, *link, "-o", elf)
    command = [
        "qemu-system-arm",
        "-M",
        f"mps2-{machine}",
        "-kernel",
        str(elf),
        "-display",
        "none",
        "-icount",
        "shift=6",
    ]
    with subprocess.Popen(
        [*command, "-serial", "stdio", "-monitor", "none"], stdout=subprocess.PIPE, text=True
    ) as board:
        assert board.stdout is not None
        lines = list(iter(board.stdout.readline, "end\n"))
        board.kill()
    out.write_text("".join(lines))
    measured = (line.split() for line in lines)
    return {name: int(cycles) * NS_PER_CYCLE / NS_PER_INSTRUCTION / int(count) for name, count, cycles in measured}


def sizes(folder: Path) -> dict[str, dict[str, int]]:
    """Return bytes of code and constants, and of RAM, of each part, on a Cortex-M4 with -Os."""
    found = {}
    for source in library_sources():
        out = folder / f"{source.stem}.o"
        run("arm-none-eabi-gcc", *FLAGS, "-Os", "-mcpu=cortex-m4", "-c", source, "-o", out)
        text, data, bss = map(int, run("arm-none-eabi-size", out).splitlines()[1].split()[:3])
        found[source.stem] = {"flash_bytes": text + data, "ram_bytes": data + bss}
    return found


def deepest(folder: Path) -> dict[str, int]:
    """Return bytes of stack that each entry takes at most."""
    own: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for source in library_sources():
        run(
            "arm-none-eabi-gcc", *FLAGS, "-Os", "-mcpu=cortex-m4", "-fcallgraph-info=su", "-c", source,
            "-o", folder / f"{source.stem}.o", cwd=folder,
        )  # fmt: skip
        for line in (folder / f"{source.stem}.ci").read_text().splitlines():
            name = r'"(?:[^":]*:)?([A-Za-z_0-9]+)"'
            if node := re.match(rf"node: {{ title: {name} label: .*\\n(\d+) bytes \((\w+)\)", line):
                if node[3] != "static":
                    raise SystemExit(f"the stack of {node[1]} is not bounded: {node[3]}")
                own[f"{source.stem}:{node[1]}"] = int(node[2])
            if edge := re.match(rf"edge: {{ sourcename: {name} targetname: {name}", line):
                calls.setdefault(f"{source.stem}:{edge[1]}", set()).add(edge[2])
    return {entry: _depth(f"{_home(entry, own)}:{entry}", own, calls, ()) for entry in ENTRIES}


def _home(function: str, own: dict[str, int]) -> str:
    return next(name.split(":")[0] for name in own if name.split(":")[1] == function)


def _depth(function: str, own: dict[str, int], calls: dict[str, set[str]], above: tuple[str, ...]) -> int:
    if function in above:
        raise SystemExit(f"recursion: {' -> '.join((*above, function))}")
    home = function.split(":")[0]
    below = 0
    for callee in calls.get(function, ()):
        # A static function is one of the same file; what is in neither is the compiler's (memcpy and the like).
        known = [name for name in (f"{home}:{callee}", *(n for n in own if n.endswith(f":{callee}"))) if name in own]
        if known:
            below = max(below, _depth(known[0], own, calls, (*above, function)))
    return own[function] + below


def measure() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            "instructions_per_byte": {
                f"{BOARDS[machine][0]} {optimise}": instructions(machine, optimise, folder)
                for machine in BOARDS
                for optimise in ("-Os", "-O2")
            },
            "size": sizes(folder),
            "stack_bytes": deepest(folder),
        }


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def show(figures: dict[str, object]) -> None:
    cost, size, stack = (figures[name] for name in ("instructions_per_byte", "size", "stack_bytes"))
    assert isinstance(cost, dict)
    assert isinstance(size, dict)
    assert isinstance(stack, dict)
    names = list(next(iter(cost.values())))
    print(table(["instructions per byte", *names], [[b, *(f"{c[n]:.1f}" for n in names)] for b, c in cost.items()]))
    print()
    rows = [[name, str(s["flash_bytes"]), str(s["ram_bytes"])] for name, s in size.items()]
    total = [str(sum(s[what] for s in size.values())) for what in ("flash_bytes", "ram_bytes")]
    print(table(["Cortex-M4, -Os", "flash, bytes", "static RAM, bytes"], [*rows, ["all", *total]]))
    print()
    print(table(["deepest stack", "bytes"], [[f"{n} ({ENTRIES[n]})", str(b)] for n, b in stack.items()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    if missing := [tool for tool in ("arm-none-eabi-gcc", "qemu-system-arm") if shutil.which(tool) is None]:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    figures = measure()
    if parser.parse_args().json:
        json.dump(figures, sys.stdout, indent=1)
    else:
        show(figures)


if __name__ == "__main__":
    main()
