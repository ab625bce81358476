from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_samples import make_adapter, make_golden, make_labels, make_origin
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_cmcl import tensors
from edge_cmcl.bundle.canonical import canonical
from edge_cmcl.bundle.payloads import (
    Adapter,
    Golden,
    LabelFeatures,
    adapter_from_bytes,
    adapter_to_bytes,
    golden_from_bytes,
    golden_to_bytes,
    labels_from_bytes,
    labels_to_bytes,
    sketch_from_bytes,
    sketch_to_bytes,
)
from edge_cmcl.bundle.tensor_header import metadata
from edge_cmcl.continual.sketch import Sketch
from edge_cmcl.errors import FormatError

FLOAT16 = hnp.arrays(
    np.float16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.floats(-9, 9, width=16)
)


def test_an_adapter_reads_back_bit_for_bit() -> None:
    for adapter in (make_adapter(1), make_adapter(2, text=True)):
        read = adapter_from_bytes(adapter_to_bytes(adapter))
        for name in ("weight", "mean", "std"):
            wrote, got = getattr(adapter, name), getattr(read, name)
            assert (wrote is None and got is None) or np.array_equal(wrote, got)


def test_a_transposed_weight_is_stored_as_it_looks() -> None:
    weight = np.arange(12, dtype=np.float32).reshape(4, 3).T
    assert np.array_equal(adapter_from_bytes(adapter_to_bytes(Adapter(weight))).weight, weight)


@given(FLOAT16, st.floats(0, 1e6), st.floats(0, 1e6), st.floats(1e-6, 10), st.integers(1, 10**12))
def test_a_sketch_reads_back_bit_for_bit(rows: Any, trace: float, delta: float, weight: float, n: int) -> None:
    sketch = Sketch(rows.astype(np.float32), n, trace, delta)
    origin = replace(make_origin("acc", "sha256:" + "1" * 64), sketch=sketch, weight=weight, carried=delta)
    read = sketch_from_bytes(sketch_to_bytes(origin))
    assert np.array_equal(read.sketch.rows, sketch.rows)
    assert read.sketch.rows.dtype == np.float32
    assert replace(read, sketch=sketch) == origin
    assert (read.sketch.n, read.sketch.trace, read.sketch.delta) == (n, trace, delta)


def test_golden_vectors_and_labels_read_back() -> None:
    golden = golden_from_bytes(golden_to_bytes(make_golden()))
    assert {name: array.shape for name, array in golden.inputs.items()} == {"windows": (2, 16, 3)}
    assert np.array_equal(golden.outputs["embeddings"], make_golden().outputs["embeddings"])
    labels = labels_from_bytes(labels_to_bytes(make_labels()))
    assert labels.names == ("walk", "läuft")
    assert np.array_equal(labels.features, make_labels().features)


def test_equal_payloads_are_equal_bytes_in_every_process() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import bundle_samples as s;"
        "from edge_cmcl.bundle import payloads as p;"
        "print(p.sketch_to_bytes(s.make_origin('acc')).hex(), p.adapter_to_bytes(s.make_adapter(1)).hex())"
    )
    here = __file__.rsplit("/", 2)[0]
    done = subprocess.run([sys.executable, "-c", code, here], capture_output=True, text=True, check=True)
    mine = [sketch_to_bytes(make_origin("acc")).hex(), adapter_to_bytes(make_adapter(1)).hex()]
    assert done.stdout.split() == mine


NAN = np.full((2, 3), np.nan, np.float32)
ONES = np.ones(3, np.float32)


@pytest.mark.parametrize(
    "adapter",
    [
        Adapter(NAN),
        Adapter(np.ones((2, 3), np.float32), ONES),
        Adapter(np.ones((2, 3), np.float32), ONES, np.zeros(3, np.float32)),
        Adapter(np.ones((2, 3), np.float32), ONES, np.ones(2, np.float32)),
        Adapter(np.ones((2, 3), np.float32), ONES, np.full(3, np.inf, np.float32)),
        Adapter(np.ones(3, np.float32)),
        Adapter(np.ones((2, 0), np.float32)),
        Adapter(np.ones((9000, 1), np.float32)),
    ],
    ids=["nan", "no std", "std 0", "widths differ", "inf", "rank 1", "empty", "too many rows"],
)
def test_a_wrong_adapter_is_neither_written_nor_read(adapter: Adapter) -> None:
    with pytest.raises(FormatError):
        adapter_to_bytes(adapter)
    parts = {"weight": adapter.weight, "mean": adapter.mean, "std": adapter.std}
    data = tensors.to_bytes({name: part for name, part in parts.items() if part is not None}, metadata("adapter"))
    with pytest.raises(FormatError):
        adapter_from_bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "with space"},
        {"id": ""},
        {"revision": -1},
        {"modality": "Acc"},
        {"partners": ("a" * 33,)},
        {"created": "2026-01-02"},
        {"reference": "not a digest"},
        {"reference": ""},
        {"carried": -1.0},
        {"carried": float("nan")},
        {"weight": 0.0},
        {"sketch": Sketch(np.ones((2, 3), np.float32), 0, 1.0, 0.0)},
        {"sketch": Sketch(np.ones((2, 3), np.float32), 5, float("inf"), 0.0)},
        {"sketch": Sketch(np.ones((2, 3), np.float32), 5, 1.0, -0.1)},
        {"sketch": Sketch(np.full((2, 3), 1.0001, np.float32), 5, 1.0, 0.0)},
        {"sketch": Sketch(np.full((2, 3), 1e6, np.float32), 5, 1.0, 0.0)},
        {"sketch": Sketch(NAN, 5, 1.0, 0.0)},
        {"sketch": Sketch(np.ones((1025, 3), np.float32), 5, 1.0, 0.0)},
        {"sketch": Sketch(np.ones(3, np.float32), 5, 1.0, 0.0)},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_sketch_out_of_range_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        sketch_to_bytes(replace(make_origin("acc"), **change))


def test_a_sketch_without_a_reference_is_not_read() -> None:
    good = sketch_to_bytes(make_origin("acc"))
    with tensors_of(good) as (arrays, described):
        fields = json.loads(described["edge-cmcl"])
        none = tensors.to_bytes(arrays, {"edge-cmcl": canonical({**fields, "reference": None}).decode()})
    with pytest.raises(FormatError, match="reference"):
        sketch_from_bytes(none)


def test_wrong_golden_vectors_and_labels_are_not_written() -> None:
    deep = np.ones((1,) * 6, np.float32)
    for golden in (Golden({"x": deep}, {}), Golden({"x": np.ones(2)}, {}), Golden({}, {"y": NAN})):
        with pytest.raises(FormatError):
            golden_to_bytes(golden)
    wide = np.ones((2, 1024), np.float32)
    for names, features in ((("a",), wide), (("a", "a"), wide), (("a", ""), wide), (("a", "b"), wide[:, :9])):
        with pytest.raises(FormatError):
            labels_to_bytes(LabelFeatures(names, features))


PAYLOADS = {
    "adapter": (adapter_from_bytes, adapter_to_bytes(make_adapter(1))),
    "sketch": (sketch_from_bytes, sketch_to_bytes(make_origin("acc"))),
    "golden": (golden_from_bytes, golden_to_bytes(make_golden())),
    "labels": (labels_from_bytes, labels_to_bytes(make_labels())),
}


OTHER_VERSIONS = ['"version":2', '"version":1.0', '"version":true', '"version":"1"']


@contextmanager
def tensors_of(data: bytes) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(data)
        file.flush()
        with tensors.TensorFile(Path(file.name)) as opened:
            yield {name: opened.read_whole(name) for name in opened.names}, opened.metadata


@pytest.mark.parametrize("kind", PAYLOADS)
def test_a_payload_of_another_kind_or_version_is_refused(kind: str) -> None:
    read, data = PAYLOADS[kind]
    for other, (_, foreign) in PAYLOADS.items():
        if other != kind:
            with pytest.raises(FormatError, match="another kind"):
                read(foreign)
    plain = tensors.to_bytes({"weight": np.ones((2, 2), np.float32)})
    with tensors_of(data) as (arrays, described):
        text = described["edge-cmcl"]
        more = tensors.to_bytes(arrays, {**described, "note": "x"})
        others = [tensors.to_bytes(arrays, {"edge-cmcl": text.replace('"version":1', v)}) for v in OTHER_VERSIONS]
    assert data not in others
    for wrong in (plain, more, *others):
        with pytest.raises(FormatError):
            read(wrong)


@pytest.mark.parametrize("kind", PAYLOADS)
@settings(max_examples=150)
@given(data=st.data())
def test_damaged_payloads_are_read_or_refused_but_never_crash(kind: str, data: st.DataObject) -> None:
    read, good = PAYLOADS[kind]
    header = 8 + int.from_bytes(good[:8], "little")
    damaged = bytearray(good[: data.draw(st.integers(0, len(good)) | st.just(len(good)))])
    for _ in range(data.draw(st.integers(0, 3)) if damaged else 0):
        damaged[data.draw(st.integers(0, min(len(damaged), header) - 1))] = data.draw(st.integers(0, 255))
    with suppress(FormatError):
        read(bytes(damaged))


def test_a_header_that_claims_a_terabyte_is_refused_before_it_is_believed() -> None:
    for data in ((1 << 40).to_bytes(8, "little") + b"{}", b"\xff" * 8 + b"{}" * 50, b"", b"1234567"):
        with pytest.raises(FormatError):
            adapter_from_bytes(data)
