"""Sequential fine-tuning: what happens when nothing is done against forgetting."""

from __future__ import annotations

from edge_cmcl.host.strategies.base import Strategy


class Vanilla(Strategy):
    """Trains on every step in turn with nothing but the loss of its own batches."""

    name = "vanilla"
    title = "Vanilla"
    source = "X. Liu et al., NeurIPS 2025, section 5.1 (baseline)"
