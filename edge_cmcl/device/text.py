"""Label features: class names as hashed character n-grams, so that "text" is a modality without a language model.

Normative recipe, version 1: the name is case-folded and brought to Unicode's normal form NFKC, runs of anything but
letters and digits become one space, and a space is put at both ends. Every n-gram of 1 to 4 characters adds +1 or -1
to one of 1024 places, both taken from the SHA-256 of "edge-cmcl/text/1/" and the n-gram. The sum is scaled to unit
norm. Source: K. Weinberger et al., "Feature hashing for large scale multitask learning", ICML 2009.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TEXT = "text"
WIDTH = 1024
_LONGEST = 4


def label_features(names: Sequence[str]) -> NDArray[np.float32]:
    """Return unit features (len(names), 1024) of class names; a name without letters or digits is a zero row."""
    return np.stack([_features(name) for name in names]) if names else np.zeros((0, WIDTH), np.float32)


def _features(name: str) -> NDArray[np.float32]:
    words = re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", name.casefold())).strip()
    text = f" {words} "
    sums = np.zeros(WIDTH)
    if words:
        for length in range(1, _LONGEST + 1):
            for start in range(len(text) - length + 1):
                place, sign = _hash(text[start : start + length])
                sums[place] += sign
    norm = np.linalg.norm(sums)
    return (sums / norm if norm else sums).astype(np.float32)


def _hash(gram: str) -> tuple[int, int]:
    digest = hashlib.sha256(f"edge-cmcl/text/1/{gram}".encode()).digest()
    return int.from_bytes(digest[:4], "little") % WIDTH, 1 if digest[4] & 1 else -1
