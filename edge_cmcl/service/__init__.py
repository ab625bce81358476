"""The local service: the model of a device, asked over a unix socket or loopback."""

from __future__ import annotations

from edge_cmcl.service.settings import Settings

__all__ = ["Settings"]
