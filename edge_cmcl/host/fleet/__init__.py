"""A fleet of devices as its host sees it: what they learned, brought together (DESIGN.md in this folder)."""

from edge_cmcl.host.fleet.merge import Merged, merge

__all__ = ["Merged", "merge"]
