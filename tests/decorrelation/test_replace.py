"""The replacement of a weight matrix: every variant and order, the classifier, and invalid matrices."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from reid.decorrelation import ORDERS, VARIANTS, correlation_metric, replace_weight, transform_classifier
from reid.errors import InputError

ALL = list(itertools.product(VARIANTS, ORDERS))


def correlated(d_in: int, k: int, seed: int = 0) -> torch.Tensor:
    """Weight vectors that share a direction, as trained ones do."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(d_in, 1, generator=generator, dtype=torch.float64)
    return common + torch.randn(d_in, k, generator=generator, dtype=torch.float64)


def distances(weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    outputs = inputs @ weight
    return torch.linalg.vector_norm(outputs[:, None] - outputs[None], dim=2)


def cosines(weight: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Between each old column and the one that replaced it."""
    return torch.nn.functional.cosine_similarity(weight, new, dim=0)


def inputs(d_in: int, n: int = 9) -> torch.Tensor:
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(99), dtype=torch.float64)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(30, 12), (12, 12), (5, 1)])
def test_distances_under_the_variants(shape: tuple[int, int], order: str) -> None:
    weight, h = correlated(*shape), inputs(shape[0])
    new = {variant: replace_weight(weight, variant=variant, order=order).weight for variant in VARIANTS}
    original, whitened = distances(weight, h), distances(new["U"], h)
    torch.testing.assert_close(distances(new["US"], h), original, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(distances(new["UVt"], h), whitened, rtol=1e-10, atol=1e-10)
    if shape[1] > 1:  # the other two are other distances, so the equalities above say something
        assert not torch.allclose(whitened / whitened.max(), original / original.max(), rtol=1e-3)
        assert not torch.allclose(distances(new["QD"], h), original, rtol=1e-3)


@pytest.mark.parametrize(("variant", "order"), ALL)
def test_the_turned_classifier_keeps_the_logits(variant: str, order: str) -> None:
    weight, h = correlated(20, 8), inputs(20)
    classifier = torch.randn(5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result = replace_weight(weight, variant=variant, order=order)
    transformed = transform_classifier(classifier, result.classifier_transform)
    torch.testing.assert_close(h @ result.weight @ transformed.T, h @ weight @ classifier.T, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("variant", "order"), [pair for pair in ALL if pair[0] not in ("rotate", "none")])
def test_the_columns_become_orthogonal(variant: str, order: str) -> None:
    weight = correlated(30, 12)
    result = replace_weight(weight, variant=variant, order=order)
    assert correlation_metric(weight) < 0.3
    assert correlation_metric(result.weight) == pytest.approx(1, abs=1e-12)
    expected = torch.linalg.svdvals(weight)
    torch.testing.assert_close(result.singular_values, expected)
    norms = torch.linalg.vector_norm(result.weight, dim=0)
    if variant == "US":
        torch.testing.assert_close(norms.sort(descending=True).values, expected)
        if order == "sorted":
            torch.testing.assert_close(norms, expected)
    elif variant in ("U", "UVt"):
        torch.testing.assert_close(norms, torch.ones_like(norms))
    # The new columns span what the old ones spanned.
    together = torch.linalg.matrix_rank(torch.cat([weight, result.weight], dim=1), rtol=1e-9)
    assert int(together) == 12


def test_none_keeps_the_weight() -> None:
    weight = correlated(6, 4)
    result = replace_weight(weight, variant="none")
    assert torch.equal(result.weight, weight) and torch.equal(
        result.classifier_transform, torch.eye(4, dtype=torch.float64)
    )
    assert result.weight.data_ptr() != weight.data_ptr()


def test_uvt_is_the_nearest_matrix_with_orthonormal_columns() -> None:
    weight = correlated(8, 5)
    nearest = replace_weight(weight, variant="UVt").weight
    # The polar factor W (W^T W)^{-1/2}, by the eigenvectors of the Gram matrix.
    values, vectors = np.linalg.eigh(weight.numpy().T @ weight.numpy())
    polar = weight.numpy() @ (vectors / np.sqrt(values)) @ vectors.T
    np.testing.assert_allclose(nearest.numpy(), polar, atol=1e-10)


def test_qd_equals_the_qr_of_numpy() -> None:
    weight = correlated(9, 5)
    q, r = np.linalg.qr(weight.numpy())
    np.testing.assert_allclose(replace_weight(weight, variant="QD").weight.numpy(), q * np.diag(r), atol=1e-10)


def literal_greedy(weight: np.ndarray) -> np.ndarray:
    """US matched column by column, each taking the best that is left, as the authors' script describes it."""
    left, values, _ = np.linalg.svd(weight, full_matrices=False)
    pool = [left[:, j] * values[j] for j in range(len(values))]
    placed = []
    for i in range(weight.shape[1]):
        cosine = [float(weight[:, i] @ c / np.linalg.norm(weight[:, i]) / np.linalg.norm(c)) for c in pool]
        best = max(range(len(pool)), key=lambda j: abs(cosine[j]))
        placed.append(pool.pop(best) * np.sign(cosine[best]))
    return np.stack(placed, axis=1)


@pytest.mark.parametrize("seed", range(4))
def test_greedy_equals_a_literal_matching(seed: int) -> None:
    weight = correlated(25, 10, seed)
    np.testing.assert_allclose(replace_weight(weight, order="greedy").weight, literal_greedy(weight.numpy()), atol=1e-9)


def test_sorted_is_the_raw_svd() -> None:
    weight = correlated(25, 10)
    left, values, _ = torch.linalg.svd(weight, full_matrices=False)
    assert torch.equal(replace_weight(weight, order="sorted").weight, left * values)
    assert torch.equal(replace_weight(weight, variant="U", order="sorted").weight, left)


@pytest.mark.parametrize("seed", range(4))
def test_assignment_is_the_best_of_all_permutations(seed: int) -> None:
    weight = correlated(7, 5, seed)
    left = torch.linalg.svd(weight, full_matrices=False)[0]
    table = torch.nn.functional.cosine_similarity(weight[:, :, None], left[:, None, :], dim=0).abs().numpy()
    best = max(table[range(5), p].sum() for p in itertools.permutations(range(5)))
    assert float(cosines(weight, replace_weight(weight).weight).sum()) == pytest.approx(best, rel=1e-10)


def test_assignment_matches_more_than_greedy() -> None:
    gains = []
    for seed in range(8):
        weight = correlated(40, 20, seed)
        totals = {order: float(cosines(weight, replace_weight(weight, order=order).weight).sum()) for order in ORDERS}
        gains.append(totals["assignment"] - totals["greedy"])
    assert min(gains) >= -1e-12 and max(gains) > 0.05


@pytest.mark.parametrize("variant", ["US", "U"])
def test_assignment_follows_a_permutation_of_the_columns(variant: str) -> None:
    weight = correlated(30, 12)
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(4))
    straight = replace_weight(weight, variant=variant).weight
    torch.testing.assert_close(
        replace_weight(weight[:, shuffled], variant=variant).weight, straight[:, shuffled], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(("variant", "order"), list(itertools.product(("US", "U"), ("assignment", "greedy"))))
def test_matched_columns_point_the_way_of_the_old_ones(variant: str, order: str) -> None:
    for seed in range(3):
        weight = correlated(30, 12, seed)
        assert float(cosines(weight, replace_weight(weight, variant=variant, order=order).weight).min()) > 0


def test_orthogonal_columns_stay_where_they_are() -> None:
    weight = torch.linalg.qr(correlated(20, 6))[0] * torch.tensor([1.0, -4.0, 2.0, 6.0, 0.5, 3.0], dtype=torch.float64)
    for order in ("assignment", "greedy"):
        torch.testing.assert_close(replace_weight(weight, order=order).weight, weight, rtol=1e-10, atol=1e-10)


def deficient(kind: str) -> torch.Tensor:
    weight = correlated(15, 6)
    if kind == "zero column":
        weight[:, 2] = 0
    elif kind == "twin columns":
        weight[:, 4] = weight[:, 1]
    else:
        weight.zero_()
    return weight


@pytest.mark.parametrize("kind", ["zero column", "twin columns", "zero matrix"])
@pytest.mark.parametrize(("variant", "order"), [pair for pair in ALL if pair[0] != "QD"])
def test_missing_rank_makes_no_nan_and_keeps_the_logits(kind: str, variant: str, order: str) -> None:
    weight, h = deficient(kind), inputs(15)
    result = replace_weight(weight, variant=variant, order=order)
    assert all(
        bool(torch.isfinite(part).all())
        for part in (result.weight, result.classifier_transform, result.singular_values)
    )
    torch.testing.assert_close(h @ result.weight @ result.classifier_transform.T, h @ weight, rtol=1e-10, atol=1e-10)
    if variant == "US":
        torch.testing.assert_close(distances(result.weight, h), distances(weight, h), rtol=1e-10, atol=1e-10)
    if variant in ("U", "UVt"):
        gram = result.weight.T @ result.weight
        torch.testing.assert_close(gram, torch.eye(6, dtype=torch.float64), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", ["assignment", "greedy"])
def test_dead_columns_do_not_decide_which_vectors_replace_the_others(order: str) -> None:
    weight = correlated(20, 6)
    dead = torch.cat([weight[:, :3] * 1e-40, weight, weight[:, 3:] * 1e-60], dim=1)
    alone, found = (replace_weight(columns, order=order).weight for columns in (weight, dead))
    torch.testing.assert_close(found[:, 3:9], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "column"), [("zero column", 2), ("twin columns", 4), ("zero matrix", 0)])
def test_qd_needs_full_rank(kind: str, column: int) -> None:
    with pytest.raises(InputError, match=f"the first is column {column}"):
        replace_weight(deficient(kind), variant="QD")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_floating_dtype_is_replaced_in_float64(dtype: torch.dtype) -> None:
    weight = torch.nn.Parameter(correlated(10, 4).to(dtype))
    result = replace_weight(weight)
    for part in (result.weight, result.classifier_transform, result.singular_values):
        assert part.dtype == torch.float64 and not part.requires_grad
    assert torch.equal(result.weight, replace_weight(weight.detach().double()).weight)
    classifier = torch.ones(3, 4, dtype=dtype)
    assert transform_classifier(classifier, result.classifier_transform).dtype == dtype


def test_the_input_stays_as_it_was() -> None:
    weight = correlated(10, 4)
    before = weight.clone()
    for variant, order in ALL:
        result = replace_weight(weight, variant=variant, order=order)
        result.weight.zero_()
    assert torch.equal(weight, before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_more_columns_than_dimensions_are_refused(variant: str) -> None:
    with pytest.raises(InputError, match="5 weight vectors of 4 dimensions cannot all be orthogonal"):
        replace_weight(torch.ones(4, 5), variant=variant)


def test_bad_arguments_are_told() -> None:
    weight = correlated(6, 3)
    with pytest.raises(InputError, match=r"unknown decorrelation variant 'UVT'; did you mean UVt"):
        replace_weight(weight, variant="UVT")
    with pytest.raises(InputError, match=r"unknown column order 'hungarian'.*assignment, greedy, sorted"):
        replace_weight(weight, order="hungarian")
    weight[0, 0] = math.nan
    with pytest.raises(InputError, match="1 of 18 entries"):
        replace_weight(weight)
    with pytest.raises(InputError, match=r"\(2, 4\) does not fit the 3 outputs"):
        transform_classifier(torch.ones(2, 4), torch.eye(3, dtype=torch.float64))


def test_a_random_rotation_keeps_distances_and_spectrum_and_leaves_the_correlation() -> None:
    weight, h = correlated(40, 16), inputs(40)
    rotated = replace_weight(weight, variant="rotate", seed=3)
    torch.testing.assert_close(distances(rotated.weight, h), distances(weight, h), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.linalg.svdvals(rotated.weight), torch.linalg.svdvals(weight))
    rotation = rotated.classifier_transform
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(16, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weight @ rotation, rotated.weight)
    assert correlation_metric(rotated.weight) < 0.5  # while US has 1
    assert torch.equal(replace_weight(weight, variant="rotate", seed=3).weight, rotated.weight)
    assert not torch.allclose(replace_weight(weight, variant="rotate", seed=4).weight, rotated.weight)


def test_rotations_are_drawn_uniformly() -> None:
    """Under the Haar measure an entry of a K x K orthogonal matrix has mean 0 and variance 1/K."""
    draws = [replace_weight(torch.eye(4), variant="rotate", seed=seed).weight for seed in range(500)]
    entries = torch.stack(draws).numpy()
    assert np.abs(entries.mean(0)).max() < 4 * np.sqrt(1 / 4 / 500)
    np.testing.assert_allclose(entries.var(0), 1 / 4, atol=0.06)
    assert {round(float(np.linalg.det(matrix))) for matrix in entries} == {-1, 1}
