"""How an encoder was exported: its precision, what it came from, and the processor it is meant for (bundle/FORMAT.md).

It stands in the free object `calibration` of a sensor's record under the key `runtime`, so that older readers take the
bundle; one without it is float32 for the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from edge_cmcl.bundle import ModalityRecord

KEY = "runtime"

FP32: Final = "fp32"
FP16: Final = "fp16"
INT8: Final = "int8"
INT8_DYNAMIC: Final = "int8-dynamic"
PRECISIONS = (FP32, FP16, INT8, INT8_DYNAMIC)

CPU: Final = "cpu"
CUDA: Final = "cuda"
TENSORRT: Final = "tensorrt"
TARGETS = (CPU, CUDA, TENSORRT)

MAX_PRODUCTS = 256
"""Matrix products of one encoder that are listed; a reader that finds more ignores them."""

Products = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Runtime:
    """How one encoder was exported.

    Attributes:
        precision: one of `PRECISIONS`.
        source: the encoder's kind before it was converted: "universal", "conv" or "onnx".
        target: one of `TARGETS`.
        products: (m, k, n) of the matrix products that one window of the nominal length takes, convolutions written
            as products; what a benchmark compares with BLAS.
    """

    precision: str = FP32
    source: str = ""
    target: str = CPU
    products: Products = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as a record's `calibration` holds it."""
        products = [list(product) for product in self.products]
        return {"precision": self.precision, "source": self.source, "target": self.target, "products": products}


def runtime_of(record: ModalityRecord) -> Runtime:
    """Return how the encoder of `record` was exported; what is missing or not understood is as by default."""
    found = record.calibration.get(KEY)
    told: dict[str, Any] = found if isinstance(found, dict) else {}
    precision, source, target = (told.get(name) for name in ("precision", "source", "target"))
    return Runtime(
        str(precision) if precision in PRECISIONS else FP32,
        str(source) if source in ("universal", "conv", "onnx") else record.encoder,
        str(target) if target in TARGETS else CPU,
        _products(told.get("products")),
    )


def _products(found: object) -> Products:
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) > MAX_PRODUCTS:
        return ()
    sizes = [tuple(product) if isinstance(product, list) else () for product in found]
    good = all(len(s) == 3 and all(isinstance(v, int) and 0 < v < 1 << 24 for v in s) for s in sizes)
    return tuple((s[0], s[1], s[2]) for s in sizes) if good else ()
