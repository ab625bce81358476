"""Tags that keep a generation findable whose successors, if it has any, are not in the store (FORMAT.md, "Digests")."""

from __future__ import annotations

from collections.abc import Mapping

from edge_cmcl.bundle.generation import Generation
from edge_cmcl.bundle.layout import Loaded

GENERATION_TAG = "generation-"
"""What they begin with."""


def generation_tag(generation: Generation) -> str:
    """Return the tag of a generation: its counter and time of creation."""
    return f"{GENERATION_TAG}{generation.counter}-{generation.created.replace(':', '')}"


def free_tag(loaded: Loaded, tags: Mapping[str, str]) -> str:
    """Return the tag of a generation, made longer where another one has it.

    Two exports of one run have one time, and so may two updates of one second, each on a branch of its own.

    Args:
        loaded: the generation.
        tags: the digest of each tag there is.
    """
    name = generation_tag(loaded.generation)
    return name if tags.get(name, loaded.digest) == loaded.digest else f"{name}-{loaded.digest[7:15]}"
