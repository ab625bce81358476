from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from edge_cmcl.device.training import LEARNING_RATE
from edge_cmcl.host.graphs import step_example
from edge_cmcl.host.step import EPSILON, TEMPERATURE_SCALE, WEIGHT_DECAY, info_nce, training_step

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


def log_softmax(values: Floats) -> Floats:
    return np.asarray(values - values.max() - np.log(np.exp(values - values.max()).sum()))


def loss_by_hand(a: Floats, b: Floats, ids: Ids) -> float:
    """Symmetric InfoNCE as the paper writes it: row by row, over the rows that have the partner."""
    total = 0.0
    for partner, own in zip(b, ids, strict=True):
        rows = [row for row in range(len(own)) if own[row] >= 0]
        unit_a, unit_b = ({r: side[r] / np.linalg.norm(side[r]) for r in rows} for side in (a, partner))
        terms = []
        for query in rows:
            positives = [place for place, row in enumerate(rows) if own[row] == own[query]]
            forward = log_softmax(np.array([TEMPERATURE_SCALE * unit_a[query] @ unit_b[row] for row in rows]))
            backward = log_softmax(np.array([TEMPERATURE_SCALE * unit_b[query] @ unit_a[row] for row in rows]))
            terms.append(-(forward[positives].mean() + backward[positives].mean()) / 2)
        total += float(np.mean(terms)) if terms else 0.0
    return total


def problem(seed: int, partners: int, batch: int, dimensions: int, labels: int = 0) -> tuple[Floats, Floats, Ids]:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((batch, dimensions)), rng.standard_normal((partners, batch, dimensions))
    ids = np.tile(np.arange(batch), (partners, 1))
    if labels:
        ids[-1] = rng.integers(-1, labels, batch)
        # Rows of one label share one text, as on the device.
        b[-1] = b[-1][np.maximum(ids[-1], 0)]
    return a, b, ids


def tensors(*arrays: NDArray[np.generic]) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    partners=st.integers(1, 3),
    batch=st.integers(2, 9),
    labels=st.integers(0, 4),
    missing=st.floats(0.0, 1.0),
)
def test_loss_is_the_one_written_by_hand(seed: int, partners: int, batch: int, labels: int, missing: float) -> None:
    a, b, ids = problem(seed, partners, batch, 5, min(labels, batch))
    ids[np.random.default_rng(seed + 1).random(ids.shape) < missing] = -1
    assert float(info_nce(*tensors(a, b, ids))) == pytest.approx(loss_by_hand(a, b, ids), rel=1e-5, abs=1e-9)


def test_two_rows_that_agree_and_two_that_are_swapped() -> None:
    rows = np.eye(2)
    ids = np.arange(2)[None]
    # cos 1 against cos 0 at scale 20: the loss is log(1 + e^-20), and 20 more where the rows are swapped.
    agreeing = float(info_nce(*tensors(rows, rows[None], ids)))
    swapped = float(info_nce(*tensors(rows, rows[::-1][None], ids)))
    assert agreeing == pytest.approx(np.log1p(np.exp(-20.0)), rel=1e-3)
    assert swapped == pytest.approx(20.0, rel=1e-5)


def test_norms_do_not_matter() -> None:
    a, b, ids = problem(0, 2, 6, 5)
    scaled = info_nce(*tensors(7.0 * a, 0.1 * b, ids))
    assert float(scaled) == pytest.approx(float(info_nce(*tensors(a, b, ids))), rel=1e-5)


def test_embeddings_of_a_missing_partner_do_not_matter() -> None:
    a, b, ids = problem(0, 2, 6, 5)
    ids[1, 2:4] = -1
    before = float(info_nce(*tensors(a, b, ids)))
    b[1, 2:4] = 1e3
    assert float(info_nce(*tensors(a, b, ids))) == pytest.approx(before, rel=1e-6)


def no_moments(m: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(m), torch.zeros_like(m[:, :, 0])


def first_step(m: Tensor, base: Tensor, inputs: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return training_step(m, *no_moments(m), base, inputs, ids, torch.tensor(1e-3), torch.tensor(1.0))


def setting(
    seed: int, *, batch: int = 7, dimensions: int = 5, directions: int = 3, labels: int = 3
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A step in double precision: two partners, the second of them labels, some rows of it missing."""
    a, b, ids = problem(seed, 2, batch, dimensions, labels)
    rng = np.random.default_rng(seed + 1)
    m, inputs = rng.standard_normal((3, dimensions, directions)), 0.3 * rng.standard_normal((3, batch, directions))
    m_, base, inputs_, ids_ = tensors(0.1 * m, np.concatenate([a[None], b]), inputs, ids)
    return m_, base, inputs_, ids_


@pytest.mark.parametrize("seed", range(5))
def test_gradient_is_that_of_autograd(seed: int) -> None:
    m, base, inputs, ids = setting(seed)
    free = m.clone().requires_grad_()
    embeddings = base + torch.einsum("sbk,sdk->sbd", inputs, free)
    loss = info_nce(embeddings[0], embeddings[1:], ids)
    (expected,) = torch.autograd.grad(loss, free)
    _, first, second, found = first_step(m, base, inputs, ids)
    torch.testing.assert_close(first / 0.1, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(second / 0.001, (expected**2).sum(2), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, loss.detach())


@pytest.mark.parametrize("seed", range(3))
def test_gradient_is_that_of_finite_differences_of_the_loss_by_hand(seed: int) -> None:
    m, base, inputs, ids = setting(seed)
    arrays = [tensor.numpy() for tensor in (m, base, inputs)]

    def loss_at(changes: Floats) -> float:
        embeddings = arrays[1] + np.einsum("sbk,sdk->sbd", arrays[2], changes)
        return loss_by_hand(embeddings[0], embeddings[1:], ids.numpy())

    found = first_step(m, base, inputs, ids)[1].numpy() / 0.1
    rng = np.random.default_rng(seed)
    for _ in range(12):
        place = tuple(rng.integers(0, size) for size in m.shape)
        step = np.zeros(m.shape)
        step[place] = 1e-5
        slope = (loss_at(arrays[0] + step) - loss_at(arrays[0] - step)) / 2e-5
        assert found[place] == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_three_steps_are_those_of_adamw_where_rows_have_one_column() -> None:
    """A row of one number is as long as that number is large: AdamW by element and by row are the same."""
    m, base, inputs, ids = setting(0, directions=1)
    reference = torch.nn.Parameter(m.clone())
    optimizer = torch.optim.AdamW([reference], lr=0.0, betas=(0.9, 0.999), eps=EPSILON, weight_decay=WEIGHT_DECAY)
    changes, first, second = m, *no_moments(m)
    for count, rate in enumerate((1e-2, 7e-3, 2e-3), start=1):
        optimizer.param_groups[0]["lr"] = rate
        embeddings = base + torch.einsum("sbk,sdk->sbd", inputs, reference)
        (reference.grad,) = torch.autograd.grad(info_nce(embeddings[0], embeddings[1:], ids), reference)
        optimizer.step()
        scalars = torch.tensor(rate, dtype=torch.float64), torch.tensor(float(count), dtype=torch.float64)
        changes, first, second, _ = training_step(changes, first, second, base, inputs, ids, *scalars)
        torch.testing.assert_close(changes, reference.detach(), rtol=1e-9, atol=1e-12)


def steps(m: Tensor, base: Tensor, inputs: Tensor, ids: Tensor) -> Tensor:
    (first, second), changes = no_moments(m), m
    for count, rate in enumerate((1e-2, 7e-3, 2e-3), start=1):
        scalars = torch.tensor(rate, dtype=torch.float64), torch.tensor(float(count), dtype=torch.float64)
        changes, first, second, _ = training_step(changes, first, second, base, inputs, ids, *scalars)
    return changes


def test_the_basis_of_the_update_space_does_not_matter() -> None:
    """Rotated inputs give rotated changes: what the step does depends on the space, not on how it is written down."""
    m, base, inputs, ids = setting(0)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    torch.testing.assert_close(
        steps(m @ rotation, base, inputs @ rotation, ids), steps(m, base, inputs, ids) @ rotation, rtol=1e-9, atol=1e-12
    )


def test_directions_that_are_held_back_move_less_by_the_square() -> None:
    """A column of N that the preconditioner shrinks to a tenth moves embeddings a hundredth as far."""
    m, base, inputs, ids = setting(0, directions=2)
    still = torch.zeros_like(m)
    inputs[:, :, 1] = inputs[:, :, 0] * 0.1
    moved = training_step(still, *no_moments(m), base, inputs, ids, torch.tensor(1e-3), torch.tensor(1.0))[0]
    torch.testing.assert_close(moved[:, :, 1] * 0.1, moved[:, :, 0] * 0.01, rtol=1e-6, atol=1e-12)


def test_training_goes_down_hill() -> None:
    m, base, inputs, ids = setting(0, batch=20, directions=8)
    m = torch.zeros_like(m)
    (first, second), losses = no_moments(m), []
    for count in range(1, 60):
        m, first, second, loss = training_step(
            m, first, second, base, inputs, ids, torch.tensor(LEARNING_RATE), torch.tensor(float(count))
        )
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


def test_rows_without_a_modality_are_zero_and_leave_gradients_finite() -> None:
    changes, first, second, base, inputs, ids, rate, count = step_example(
        partners=2, batch=6, dimensions=8, directions=4
    )
    missing = ids[1] < 0
    assert missing.any()
    base[2, missing], inputs[2, missing] = 0.0, 0.0
    base[0, 0], inputs[0, 0] = 0.0, 0.0
    results = training_step(changes, first, second, base, inputs, ids, rate, count)
    assert all(torch.isfinite(result).all() for result in results)


def test_a_batch_without_any_partner_only_decays() -> None:
    m, base, inputs, ids = setting(0)
    changes, first, second, loss = first_step(m, base, inputs, torch.full_like(ids, -1))
    assert float(loss) == 0.0
    assert not first.any()
    assert not second.any()
    torch.testing.assert_close(changes, m * (1 - 1e-3 * WEIGHT_DECAY))


def test_unused_directions_stay_zero() -> None:
    m, base, inputs, ids = setting(0)
    m[:, :, 2], inputs[:, :, 2] = 0.0, 0.0
    changes = first_step(m, base, inputs, ids)[0]
    assert not changes[:, :, 2].any()
    assert changes[:, :, :2].all()
