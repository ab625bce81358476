"""How large a sensor and its labels may be: limits that project files, pairs files and bundles have in common.

What is beyond them is refused where the user hands it in, and not when a finished training or update is written.
"""

from __future__ import annotations

MAX_MODALITIES = 64
"""Of one model, "text" included."""
MAX_PAIRS = 4096
MAX_CHANNELS = 65536
MAX_FRAME_SIDE = 8192
MAX_WINDOW_VALUES = 1 << 24
"""Samples times channels or cells of one window: 64 MiB. Encoders take 64 windows at once."""
MAX_UNIT_LENGTH = 64
MAX_LABELS = 4096
MAX_LABEL_LENGTH = 200

MAX_DRIFT = 0.75
"""Largest relative displacement bound of an origin that the guard lets pass by default. Measured on six data sets
(tests/bench/drift_limit.py): up to it pairs lost at most 18 % of their MRR, also without an update space; beyond it,
more than half."""
