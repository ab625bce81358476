"""The label names of several generations together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle.contents import read_labels
from edge_cmcl.bundle.limits import MAX_LABELS
from edge_cmcl.bundle.payloads import LabelFeatures
from edge_cmcl.device.model import Model
from edge_cmcl.device.text import TEXT
from edge_cmcl.errors import RefusedError


def united_labels(models: Sequence[Model]) -> LabelFeatures | None:
    """Return every label that one of `models` has learned, in the order in which they come up; None for none.

    Raises:
        RefusedError: one name has different features in two of them, or they are too many.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for model in models:
        learned = read_labels(model.loaded) if TEXT in model.modalities else None
        if learned is not None:
            for label, features in zip(learned.names, learned.features, strict=True):
                if not np.array_equal(found.setdefault(label, features), features):
                    raise RefusedError(
                        f"the label {label[:80]!r} means different things to two devices",
                        expected="one text encoder for all",
                        got="two",
                        hint="let the devices learn from the same version of edge-cmcl, or merge without one of them",
                    )
    if len(found) > MAX_LABELS:
        raise RefusedError("too many labels for one generation", expected=f"at most {MAX_LABELS}", got=str(len(found)))
    return LabelFeatures(tuple(found), np.stack(list(found.values()))) if found else None
