from firmware_bridge.virtual.board import Board
from firmware_bridge.virtual.faults import Faults, FaultyLine
from firmware_bridge.virtual.serve import native_board, python_board, serve
from firmware_bridge.virtual.signals import Signal, machine_signals, replayed

__all__ = [
    "Board",
    "Faults",
    "FaultyLine",
    "Signal",
    "machine_signals",
    "native_board",
    "python_board",
    "replayed",
    "serve",
]
