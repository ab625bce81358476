from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_cmcl.continual.alignment import PENALTIES
from edge_cmcl.device.features import unit
from edge_cmcl.device.text import TEXT
from edge_cmcl.host.adapters import Fitted, closed_form, fit_adapters
from edge_cmcl.host.pair_features import PairFeatures
from edge_cmcl.project import TrainTable

WIDTHS = {"acc": 60, "gyro": 72, "emg": 48, TEXT: 36}
N, VALIDATION, DIMENSIONS = 240, 60, 16
OPTIONS = TrainTable(epochs=4, patience=4)

Array = NDArray[np.float32]


def recordings(names: tuple[str, ...], n: int = N, seed: int = 0, noise: float = 0.3) -> dict[str, Array]:
    """Unit features of sensors that see the same hidden states, each through a matrix of its own."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n, 12))
    features = {}
    for name in names:
        width = WIDTHS[name]
        mixing = np.random.default_rng(width).standard_normal((12, width))
        features[name] = unit((hidden @ mixing + noise * rng.standard_normal((n, width))).astype(np.float32))
    return features


def pair_of(a: str, b: str, features: dict[str, Array], *, carved: bool = True) -> PairFeatures:
    n = len(features[a])
    split = n - VALIDATION
    return PairFeatures((a, b), (features[a], features[b]), np.arange(n), np.arange(split), np.arange(split, n), carved)


def similarity_gap(weights: dict[str, Array], a: str, b: str, seed: int = 5) -> float:
    """Mean cosine of the same moment minus that of different moments, on data that was not trained on."""
    features = recordings((a, b), 100, seed)
    left, right = (unit(features[name] @ weights[name].T) for name in (a, b))
    cosines = left @ right.T
    return float(np.diagonal(cosines).mean() - cosines[~np.eye(100, dtype=bool)].mean())


def test_adapters_align_moments_that_they_have_not_seen() -> None:
    pairs = [pair_of("acc", "gyro", recordings(("acc", "gyro")))]
    fitted = fit_adapters(pairs, DIMENSIONS, OPTIONS)
    assert {name: w.shape for name, w in fitted.weights.items()} == {"acc": (16, 60), "gyro": (16, 72)}
    assert all(w.dtype == np.float32 for w in fitted.weights.values())
    assert similarity_gap(fitted.weights, "acc", "gyro") > 0.8
    shuffled = recordings(("acc", "gyro"))
    shuffled["gyro"] = np.random.default_rng(1).permutation(shuffled["gyro"])
    nonsense = fit_adapters([pair_of("acc", "gyro", shuffled)], DIMENSIONS, OPTIONS)
    assert abs(similarity_gap(nonsense.weights, "acc", "gyro")) < 0.2


def test_history_tells_validation_figures_of_every_epoch_from_the_closed_form_on() -> None:
    history = fit_adapters([pair_of("acc", "gyro", recordings(("acc", "gyro")))], DIMENSIONS, OPTIONS).history
    assert [entry["epoch"] for entry in history.epochs] == [0, 1, 2, 3, 4]
    assert np.isnan(history.epochs[0]["loss"])
    for entry in history.epochs:
        assert 0 < entry["validation_mrr"] <= 1
        assert 0 < entry["validation_recall_at_10"] <= 1


def fitted_rows(carved: bool) -> Fitted:
    return fit_adapters([pair_of("acc", "gyro", recordings(("acc", "gyro")), carved=carved)], DIMENSIONS, OPTIONS)


def test_validation_rows_join_the_last_fit_only_where_they_were_cut_out_of_training() -> None:
    carved, given = fitted_rows(True), fitted_rows(False)
    assert {sketch.n for sketch in carved.sketches.values()} == {N}
    assert {sketch.n for sketch in given.sketches.values()} == {N - VALIDATION}
    assert not np.allclose(carved.weights["acc"], given.weights["acc"])


def test_the_sketch_is_the_second_moment_of_the_features() -> None:
    features = recordings(("acc", "gyro"))
    sketch = fit_adapters([pair_of("acc", "gyro", features)], DIMENSIONS, OPTIONS).sketches["acc"]
    exact = features["acc"].T.astype(np.float64) @ features["acc"] / N
    missing = np.linalg.eigvalsh(exact - sketch.rows.T.astype(np.float64) @ sketch.rows)
    assert sketch.trace == pytest.approx(1.0)
    assert missing.max() <= sketch.delta + 1e-9


def test_the_seed_decides_and_nothing_else() -> None:
    pairs = [pair_of("acc", "gyro", recordings(("acc", "gyro"), noise=2.0))]
    first, second = (fit_adapters(pairs, DIMENSIONS, OPTIONS.model_copy(update={"seed": 3})) for _ in range(2))
    other = fit_adapters(pairs, DIMENSIONS, OPTIONS.model_copy(update={"seed": 4}))
    assert np.array_equal(first.weights["acc"], second.weights["acc"])
    assert first.history.epochs[1:] == second.history.epochs[1:]
    assert first.history.epochs[1] != other.history.epochs[1]


def test_penalties_come_in_the_order_of_the_pairs_although_a_later_pair_is_fitted_first() -> None:
    names = ("acc", "gyro", "emg", TEXT)
    features = recordings(names)
    joined = [pair_of("acc", "gyro", features), pair_of("emg", TEXT, features), pair_of("gyro", "emg", features)]
    chosen = (0.1, 1.0, 10.0)
    maps, penalties = closed_form(joined, WIDTHS, DIMENSIONS, chosen)
    assert penalties == chosen
    # gyro-emg is fitted before emg-text, which would otherwise start a space of its own.
    reordered, _ = closed_form([joined[0], joined[2], joined[1]], WIDTHS, DIMENSIONS, (0.1, 10.0, 1.0))
    assert maps.keys() == set(names)
    for name in names:
        assert np.array_equal(maps[name], reordered[name])


def test_a_pair_of_two_known_sides_chooses_no_penalty_and_is_aligned_all_the_same() -> None:
    features = recordings(("acc", "gyro", "emg"))
    pairs = [pair_of(a, b, features) for a, b in (("acc", "gyro"), ("gyro", "emg"), ("acc", "emg"))]
    fitted = fit_adapters(pairs, DIMENSIONS, OPTIONS)
    assert fitted.penalties[2] is None
    assert all(penalty in PENALTIES for penalty in fitted.penalties[:2])
    assert similarity_gap(fitted.weights, "acc", "emg") > 0.8


def test_pairs_without_a_common_modality_are_fitted_side_by_side() -> None:
    features = recordings(("acc", "gyro", "emg", TEXT))
    pairs = [pair_of("acc", "gyro", features), pair_of("emg", TEXT, features)]
    fitted = fit_adapters(pairs, DIMENSIONS, OPTIONS)
    assert similarity_gap(fitted.weights, "acc", "gyro") > 0.8
    assert similarity_gap(fitted.weights, "emg", TEXT) > 0.8


def test_windows_of_one_label_are_drawn_to_that_label() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, N)
    centres, names = rng.standard_normal((3, WIDTHS["acc"])), rng.standard_normal((3, WIDTHS[TEXT]))
    windows = unit((centres[labels] + rng.standard_normal((N, WIDTHS["acc"]))).astype(np.float32))
    text = unit(names.astype(np.float32))
    rows = np.arange(N)
    pair = PairFeatures(("acc", TEXT), (windows, text[labels]), labels, rows[:180], rows[180:], True)
    fitted = fit_adapters([pair], DIMENSIONS, OPTIONS)
    fresh = rng.integers(0, 3, 90)
    unseen = unit((centres[fresh] + rng.standard_normal((90, WIDTHS["acc"]))).astype(np.float32))
    similarity = unit(unseen @ fitted.weights["acc"].T) @ unit(text @ fitted.weights[TEXT].T).T
    assert (similarity.argmax(axis=1) == fresh).mean() > 0.95
    assert "validation_recall_at_10" not in fitted.history.epochs[0]


def test_a_cut_off_fit_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    pairs = [pair_of("acc", "gyro", recordings(("acc", "gyro"), noise=2.0))]
    checkpoint = tmp_path / "resume.safetensors"
    whole = fit_adapters(pairs, DIMENSIONS, OPTIONS)

    def cut_off(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_adapters(pairs, DIMENSIONS, OPTIONS, checkpoint=checkpoint, fingerprint="x", progress=cut_off)
    told: list[int] = []
    rest = fit_adapters(
        pairs,
        DIMENSIONS,
        OPTIONS,
        checkpoint=checkpoint,
        fingerprint="x",
        progress=lambda stage, done, total: told.append(done) if stage == "train adapters" else None,
    )
    assert told == [3, 4]
    assert rest.history.epochs[1:] == whole.history.epochs[1:]
    assert np.array_equal(rest.weights["gyro"], whole.weights["gyro"])
