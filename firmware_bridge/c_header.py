"""A blob as a C header: for firmware that is built with its first model."""

from __future__ import annotations

import numpy as np

from firmware_bridge.blob import MicroModel
from firmware_bridge.micro import scratch_bytes

FIRST_WORDS = "/* edge-cmcl micro model"
"""How such a header begins."""

_WORDS_PER_LINE = 10


def c_header(model: MicroModel, data: bytes) -> str:
    """Return a C99 header that declares the blob `data` of `model`, with what firmware must reserve for it.

    The array is of 32-bit words, so that it is aligned as the blob must be; they are read as little-endian bytes.
    """
    name = f"ec_model_{model.modality}"
    upper = name.upper()
    sizes = {
        "BYTES": len(data),
        "SCRATCH_BYTES": scratch_bytes(model),
        "CHANNELS": model.channels,
        "SAMPLES": model.samples,
        "DIMENSIONS": model.dimensions,
    }
    words = [f"0x{word:08x}u," for word in np.frombuffer(data, "<u4").tolist()]
    lines = [" ".join(words[at : at + _WORDS_PER_LINE]) for at in range(0, len(words), _WORDS_PER_LINE)]
    described = f"{model.modality}, {model.precision}, width {model.width}, of generation {model.generation.hex()[:12]}"
    return "\n".join(
        [
            f"{FIRST_WORDS}: {described}. Made by `edge-cmcl blob`; do not edit.",
            f" * ec_micro_open((const uint8_t *){name}, {upper}_BYTES, &model); */",
            f"#ifndef {upper}_H",
            f"#define {upper}_H",
            "",
            "#include <stdint.h>",
            "",
            *(f"#define {upper}_{key} {value}u" for key, value in sizes.items()),
            "",
            f"static const uint32_t {name}[{len(words)}] = {{",
            *(f"    {line}" for line in lines),
            "};",
            "",
            "#endif",
            "",
        ]
    )
