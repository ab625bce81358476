"""The blob of a micro model: what is written is read, what breaks the format is refused; and what NumPy computes."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from micro_samples import PRECISIONS, patched, random_model, random_windows, resealed, vectors

from edge_cmcl.errors import FormatError, UsageError
from edge_cmcl.tensors import TensorFile
from firmware_bridge import blob, micro
from firmware_bridge.c_header import FIRST_WORDS, c_header

HEADER_FAULTS = {
    "magic": (0, b"ECMN"),
    "version": (4, b"\2\0"),
    "precision": (6, b"\2"),
    "reserved": (7, b"\1"),
    "no channel": (12, b"\0\0"),
    "a channel less than kernels see": (12, b"\2\0"),
    "too few samples": (14, b"\x0f\0"),
    "too many samples": (14, b"\1\x10"),
    "a width that is no multiple of 12": (16, b"\x15\0"),
    "no width": (16, b"\0\0"),
    "a larger width than there is": (16, b"\x30\0"),
    "no dimension": (18, b"\0\0"),
    "more dimensions than there are": (18, b"\x0b\0"),
    "fewer taps than there are": (20, b"\x0d\0\0\0"),
    "taps beyond everything": (20, b"\xff\xff\xff\xff"),
    "more labels than there are": (24, b"\4\0"),
    "fewer labels than there are": (24, b"\2\0"),
    "labels beyond the limit": (24, b"\xff\xff"),
    "names beyond everything": (28, b"\xff\xff\xff\xff"),
    "scale zero": (32, struct.pack("<f", 0)),
    "scale NaN": (32, struct.pack("<f", float("nan"))),
    "scale infinite": (32, struct.pack("<f", float("inf"))),
    "label step below zero": (36, struct.pack("<f", -1)),
    "modality of capitals": (40, b"GYRO"),
    "no modality": (40, b"\0"),
    "modality that goes on after its end": (40, b"gyro\0x"),
    "modality without an end": (40, b"g" * 36),
    "a dilation that is none": (108, b"\3"),
    "kernels' reserved byte": (109, b"\1"),
    "a kernel that sees nothing": (110, b"\0\0"),
    "a kernel that sees more channels than there are": (110, b"\4\0"),
    "a tap of a channel that is not there": (108 + 32, b"\3\0"),
    "padding": (-5, b"\1"),
    "a name without an end": (-7, b"x"),
    "a name with an end inside": (-9, b"\0"),
    "a name that is not UTF-8": (-9, b"\xff"),
}
INTEGER_FAULTS = {
    "input shift": (26, b"\x10\0"),
    "weights whose sum is too large": (108 + 32 + 28, b"\xff\x7f" * 7),
}


@pytest.fixture(params=PRECISIONS)
def golden(request: pytest.FixtureRequest) -> bytes:
    return vectors()[f"{request.param}.blob"].tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_numpy_gives_the_golden_embeddings_labels_and_cosines_bit_by_bit(precision: str) -> None:
    found = vectors()
    model = blob.read(found[f"{precision}.blob"].tobytes())
    embeddings = micro.embed(model, found["windows"])
    labels, cosines = micro.nearest(model, embeddings)
    assert embeddings.dtype == found[f"{precision}.embeddings"].dtype
    assert np.array_equal(embeddings, found[f"{precision}.embeddings"])
    assert np.array_equal(labels, found[f"{precision}.labels"])
    assert np.array_equal(cosines, found[f"{precision}.cosines"])


def test_a_blob_that_was_read_is_written_with_the_same_bytes(golden: bytes) -> None:
    model = blob.read(golden)
    assert (model.modality, model.channels, model.samples, model.width) == ("gyro", 3, 19, 24)
    assert model.label_names == ("idle", "läuft", "bearing fault")
    assert blob.write(model) == golden


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("labels", [0, 1, 5])
def test_what_is_written_is_read(precision: str, labels: int) -> None:
    model = random_model(precision, channels=7, samples=33, width=36, dimensions=6, labels=labels)
    found = blob.read(blob.write(model))
    for name, value in vars(model).items():
        if isinstance(value, np.ndarray):
            assert getattr(found, name).dtype == value.dtype, name
            assert np.array_equal(getattr(found, name), value), name
        else:
            assert getattr(found, name) == value, name


@pytest.mark.parametrize("fault", HEADER_FAULTS)
def test_a_field_that_breaks_the_format_is_refused_although_the_checksum_is_right(golden: bytes, fault: str) -> None:
    at, new = HEADER_FAULTS[fault]
    with pytest.raises(FormatError):
        blob.read(patched(golden, at % len(golden), new))


@pytest.mark.parametrize("fault", INTEGER_FAULTS)
def test_numbers_that_could_leave_32_bits_are_refused(fault: str) -> None:
    golden = vectors()["int8.blob"].tobytes()
    at, new = INTEGER_FAULTS[fault]
    with pytest.raises(FormatError):
        blob.read(patched(golden, at, new))


def test_a_number_that_is_not_finite_is_refused() -> None:
    model = random_model("float32", width=12, dimensions=4)
    for name in ("weights", "biases", "means", "factors", "head", "labels"):
        broken = getattr(model, name).copy()
        broken.flat[-1] = np.nan
        with pytest.raises(FormatError):
            blob.write(replace(model, **{name: broken}))


def test_a_cut_or_longer_blob_is_refused(golden: bytes) -> None:
    for end in range(0, len(golden), 7):
        with pytest.raises(FormatError):
            blob.read(golden[:end])
        if end > 16:
            with pytest.raises(FormatError):
                blob.read(resealed(golden[:end]))
    with pytest.raises(FormatError):
        blob.read(resealed(golden + bytes(4)))


def test_a_flipped_bit_is_found(golden: bytes) -> None:
    for at in range(0, len(golden), 3):
        with pytest.raises(FormatError):
            blob.read(golden[:at] + bytes([golden[at] ^ 1 << at % 8]) + golden[at + 1 :])


@pytest.mark.parametrize("change", [{"channels": 2000}, {"samples": 8192}, {"dimensions": 2048}, {"labels": 1025}])
def test_a_model_beyond_the_limits_is_refused_before_anything_is_written(change: dict[str, int]) -> None:
    model = random_model("float32", **{"width": 12, "dimensions": 4, "labels": 1, **change})
    with pytest.raises(UsageError, match="too large for a micro model"):
        blob.write(model)


def test_features_are_those_of_the_universal_encoder() -> None:
    with TensorFile(Path(__file__).parent.parent / "vectors" / "universal.safetensors") as file:
        golden = {name: file.read_whole(name) for name in file.names}
    for modality in ("acc", "emg"):
        weights, biases = golden[f"{modality}.weights"], golden[f"{modality}.biases"]
        kernels = weights.shape[0] * weights.shape[1]
        for length in ("long", "medium", "short"):
            windows = golden[f"{modality}.{length}.windows"]
            samples = windows.shape[1]
            kept = np.array([9 * dilation <= 2 * samples for dilation in (1, 2, 4, 8)], np.float32)
            model = micro.float_model(
                modality=modality,
                generation=bytes(32),
                samples=samples,
                scale=1.0,
                weights=(weights * kept[:, None, None, None]).reshape(kernels, -1, 7),
                biases=(biases * kept[:, None]).reshape(-1),
                dilations=np.repeat([1, 2, 4, 8], kernels // 4).tolist(),
                mean=np.zeros(3 * kernels, np.float32),
                std=np.ones(3 * kernels, np.float32),
                head=np.ones((1, 3 * kernels), np.float32),
                label_names=(),
                labels=np.zeros((0, 1), np.float32),
            )
            wanted = golden[f"{modality}.{length}.features"].reshape(-1, 4, 3, kernels // 4)
            found = micro.features(model, windows)
            assert np.abs(found - wanted.transpose(0, 1, 3, 2).reshape(len(windows), -1)).max() < 1e-5


def test_an_int8_model_embeds_nearly_as_its_float32_model_does() -> None:
    single, whole = random_model("float32"), random_model("int8")
    windows = random_windows(single, 20)
    wanted, found = micro.embed(single, windows), micro.unit(micro.embed(whole, windows))
    assert np.einsum("ij,ij->i", wanted, found).min() > 0.999
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
    labels, cosines = micro.nearest(single, wanted)
    assert np.abs(micro.nearest(whole, micro.embed(whole, windows))[1] - cosines).max() < 0.02
    assert (micro.nearest(whole, micro.embed(whole, windows))[0] == labels).mean() > 0.9


def test_embeddings_of_encoder_outputs_are_those_of_the_windows_that_gave_them() -> None:
    single, whole = random_model("float32"), random_model("int8")
    windows = random_windows(single, 5)
    outputs = micro.features(single, windows / np.float32(single.scale))
    assert np.array_equal(micro.embed_outputs(single, single, outputs), micro.embed(single, windows))
    found = micro.unit(micro.embed_outputs(whole, single, outputs))
    assert np.abs(found - micro.unit(micro.embed(whole, windows))).max() < 0.01


def test_samples_saturate_and_round_halves_away_from_zero() -> None:
    model = replace(random_model("int8", width=12, dimensions=4), scale=2.0, input_shift=3)
    values = np.array([0.125, -0.125, 0.1249, 1e9, -1e9, np.inf, np.nan, 8191.9, -8191.9], np.float32)
    assert micro.quantise(model, values).tolist() == [1, -1, 0, 32767, -32767, 32767, 0, 32767, -32767]


def test_the_worst_samples_do_not_leave_32_bits() -> None:
    model = random_model("int8", channels=64)
    starts = np.cumsum(model.counts.astype(int)) - model.counts
    sums = np.add.reduceat(np.abs(model.weights.astype(int)).sum(axis=1), starts)
    assert sums[sums > 0].min() > 32000  # the weights use the room that they have
    assert (sums * 32768 + np.abs(model.biases.astype(int))).max() < 2**31
    loud = np.where(random_windows(model, 4) > 0, 32767, -32768).astype(np.int16)
    assert np.abs(micro.features(model, loud)).max() < 2**31
    assert np.abs(micro.embed_samples(model, loud)).max() <= 32767


def test_a_window_without_any_feature_gives_a_zero_embedding() -> None:
    for precision in PRECISIONS:
        model = random_model(precision, width=12, dimensions=4)
        zero = replace(model, head=np.zeros_like(model.head))
        assert not micro.embed(zero, random_windows(zero, 1)).any()


def test_the_c_header_holds_the_blob_word_by_word() -> None:
    model = random_model("int8", width=12, dimensions=4)
    data = blob.write(model)
    text = c_header(model, data)
    assert text.startswith(FIRST_WORDS)
    words = [
        int(word.strip().rstrip("u"), 16) for word in text[text.index("= {") + 3 : text.index("};")].split(",")[:-1]
    ]
    assert struct.pack(f"<{len(words)}I", *words) == data
    assert f"EC_MODEL_GYRO_BYTES {len(data)}u" in text
