"""Paired windows: file format, import, windowing, alignment, simulator and public data sets."""

from __future__ import annotations

from edge_cmcl.data.pairs import Pairs, file_digest, open_pairs, pairs_in_memory, write_pairs
from edge_cmcl.data.windows import DropReport

__all__ = ["DropReport", "Pairs", "file_digest", "open_pairs", "pairs_in_memory", "write_pairs"]
