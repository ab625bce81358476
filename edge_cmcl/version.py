"""What wrote a file: name and version, as bundles and runs record it."""

from __future__ import annotations

from importlib.metadata import version

SOFTWARE = f"edge-cmcl {version('edge-cmcl')}"
