"""Paired windows: file format, import, windowing, alignment, simulator and public data sets."""

from __future__ import annotations

from edge_cmcl.data.pairs import Pairs, file_digest, open_pairs, write_pairs
from edge_cmcl.data.windows import DropReport

__all__ = ["DropReport", "Pairs", "file_digest", "open_pairs", "write_pairs"]
