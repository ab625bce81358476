"""Which matrix products an encoder's graph computes, so that a benchmark can compare it with plain BLAS."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx

from edge_cmcl.device.runtime import MAX_PRODUCTS, Products

Shape = tuple[int, ...]


def products_of(graph: bytes, window_shape: Sequence[int]) -> Products:
    """Return (m, k, n) of each product of one window; () where shapes cannot be told, or there are too many.

    A convolution counts as the product of its kernels (m, k) and the unrolled input (k, n).

    Args:
        graph: an encoder's graph in float32.
        window_shape: (T, C) or (T, H, W).
    """
    model = onnx.load_model_from_string(graph)
    sizes = [1, *window_shape]
    for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim, sizes, strict=True):
        dimension.dim_value = size
    try:
        shapes = _shapes(onnx.shape_inference.infer_shapes(model, data_prop=True).graph)
    except onnx.shape_inference.InferenceError:
        return ()
    found = [_product(node, shapes) for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    known = tuple(product for product in found if product is not None)
    return known if len(known) == len(found) <= MAX_PRODUCTS else ()


def _shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    found = {value.name: tuple(value.dims) for value in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and all(dimension.dim_value > 0 for dimension in dimensions):
            found[value.name] = tuple(dimension.dim_value for dimension in dimensions)
    return found


def _product(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> tuple[int, int, int] | None:
    left, right, result = (shapes.get(name) for name in (node.input[0], node.input[1], node.output[0]))
    if left is None or right is None or result is None:
        return None
    if node.op_type == "Conv":
        return right[0], math.prod(right[1:]), math.prod(result) // right[0]
    inner = left[0] if _transposed(node) else left[-1]
    return math.prod(result[:-1]), inner, result[-1]


def _transposed(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
