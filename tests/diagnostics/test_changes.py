"""Two checkpoints of one network: distances, angles and similarities, against direct computations."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.linalg
import torch

from reid.decorrelation import replace_weight
from reid.diagnostics.changes import compare_features, compare_layers, compare_matrices
from reid.diagnostics.survey import find_layers
from reid.diagnostics.weights import Layer
from reid.errors import InputError
from reid.report.diagnosis_changes import changes_tables


def test_weights_by_direct_computation() -> None:
    torch.manual_seed(0)
    before = torch.randn(1, 30, 12, dtype=torch.float64) * torch.linspace(0.2, 3, 12)
    after = before + 0.3 * torch.randn_like(before)
    found = compare_matrices(after, before)
    a, b = after[0].numpy(), before[0].numpy()
    assert found["distance"] == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b))
    assert found["cosine"] == pytest.approx((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
    rotation, _ = scipy.linalg.orthogonal_procrustes(b, a)
    assert found["procrustes"] == pytest.approx(np.linalg.norm(a - b @ rotation) / np.linalg.norm(b))
    energy = np.cumsum(np.linalg.svd(b, compute_uv=False) ** 2)
    r = int(np.argmax(energy >= 0.9 * energy[-1])) + 1
    angles = scipy.linalg.subspace_angles(np.linalg.svd(a)[0][:, :r], np.linalg.svd(b)[0][:, :r])
    assert found["directions"] == r and found["overlap_by_chance"] == pytest.approx(r / 30)
    assert found["overlap"] == pytest.approx(np.mean(np.cos(angles) ** 2))
    assert found["largest_angle"] == pytest.approx(math.degrees(angles.max()))


def test_decorrelation_changes_no_direction_of_the_input() -> None:
    torch.manual_seed(0)
    weight = torch.randn(20, 8, dtype=torch.float64) + torch.randn(20, 1)
    us = replace_weight(weight, variant="US").weight
    found = compare_layers([Layer("fc", us.T)], [Layer("fc", weight.T)])["layers"][0]
    assert found["after"]["correlation"] == pytest.approx(1) and found["before"]["correlation"] < 0.5
    assert found["distance"] > 0.5 and found["procrustes"] < 1e-6
    assert found["overlap"] == pytest.approx(1) and found["largest_angle"] < 1e-5


def test_groups_are_compared_within_themselves() -> None:
    torch.manual_seed(0)
    before, after = (torch.randn(3, 10, 4, dtype=torch.float64) for _ in range(2))
    each = [compare_matrices(after[g : g + 1], before[g : g + 1]) for g in range(3)]
    found = compare_matrices(after, before)
    assert found["overlap"] == pytest.approx(np.mean([one["overlap"] for one in each]))
    squares = [(one["procrustes"] ** 2) * float(before[g].square().sum()) for g, one in enumerate(each)]
    assert found["procrustes"] == pytest.approx(math.sqrt(sum(squares) / float(before.square().sum())))


def test_groups_that_one_file_does_not_show_are_those_of_the_other() -> None:
    after, before = torch.randn(2, 8, 3, 3, 3, dtype=torch.float64)
    known, guessed = (Layer("conv", before, 4, "network"), Layer("conv", before))
    for other in (known, guessed):
        for side in (Layer("conv", after, 4, "network"), Layer("conv", after, 2)):
            (row,) = compare_layers([side], [other])["layers"]
            groups = side.groups if other is guessed else 4
            assert row["groups"] == groups
            assert (
                row["overlap"]
                == compare_layers([Layer("conv", after, groups)], [Layer("conv", before, groups)])["layers"][0][
                    "overlap"
                ]
            )


def test_what_cannot_be_compared_is_named() -> None:
    torch.manual_seed(0)
    before = {"a.weight": torch.randn(6, 9), "b.weight": torch.randn(6, 9), "c.weight": torch.randn(6, 9)}
    after = {"a.weight": before["a.weight"] + 0.1, "b.weight": torch.zeros(6, 9), "c.weight": torch.randn(5, 9)}
    found = compare_layers(find_layers(after), find_layers(before))
    assert [row["name"] for row in found["layers"]] == ["a.weight", "b.weight"]
    assert found["layers"][1]["broken"] == "all 54 entries are zero" and found["unmatched"] == ["c.weight"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    with pytest.raises(InputError, match=r"no layer of the same name and shape \(such as a\.weight and c\.weight\)"):
        compare_layers(find_layers({"a.weight": torch.randn(6, 9)}), find_layers({"c.weight": torch.randn(6, 9)}))


def test_features() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(50, 7)) + 3, random.normal(size=(50, 5))
    found = compare_features(x, y)
    center = np.eye(50) - 1 / 50
    k, m = center @ x @ x.T @ center, center @ y @ y.T @ center
    assert found["cka"] == pytest.approx((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))
    a, b = (center @ v / np.linalg.norm(center @ v) for v in (x, np.pad(y, ((0, 0), (0, 2)))))
    rotation, _ = scipy.linalg.orthogonal_procrustes(b, a)
    assert found["procrustes"] == pytest.approx(((a - b @ rotation) ** 2).sum())
    rotated = 5 * x @ np.linalg.qr(random.normal(size=(7, 7)))[0] + 1
    same = compare_features(x, rotated)
    assert (same["cka"], same["procrustes"]) == pytest.approx((1.0, 0.0), abs=1e-9)
    # A shuffle leaves what unrelated rows have by chance, which is most of what such a pair has.
    assert same["cka_by_chance"] == pytest.approx(found["cka"], abs=0.1)
    assert same["procrustes_by_chance"] == pytest.approx(found["procrustes"], abs=0.3)
    shuffled = compare_features(x, np.random.default_rng(0).permutation(rotated))
    assert shuffled["cka"] == pytest.approx(same["cka_by_chance"])
    with pytest.raises(InputError, match="all 50 feature rows are equal"):
        compare_features(x, np.ones((50, 3)))


@pytest.mark.parametrize("scale", [1e-100, 1e-82, 1e78, 1e100])
def test_the_scale_changes_nothing(scale: float) -> None:
    torch.manual_seed(0)
    before, after = (torch.randn(2, 12, 5, dtype=torch.float64) for _ in range(2))
    found = compare_matrices(after, before)
    assert compare_matrices(after * scale, before * scale) == pytest.approx(found, rel=1e-9)
    # Lengths apart, the same: what is added to a long weight does not count.
    tiny = compare_matrices(after * 1e-100, before * scale if scale > 1 else before)
    for key in ("cosine", "directions", "overlap", "overlap_by_chance", "largest_angle"):
        assert tiny[key] == pytest.approx(found[key], rel=1e-9), key
    assert (tiny["distance"], tiny["procrustes"]) == pytest.approx((1.0, 1.0))
    x, y = (np.random.default_rng(seed).normal(size=(20, 3)) for seed in range(2))
    assert compare_features(x * scale, y / scale) == pytest.approx(compare_features(x, y))


def test_no_arbitrary_direction_is_compared() -> None:
    torch.manual_seed(0)
    before = torch.randn(1, 12, 6, dtype=torch.float64)
    left, values, right = torch.linalg.svd(before[0], full_matrices=False)
    # Two directions are left of the six: these are compared, and the same.
    low = (left[:, :2] * values[:2]) @ right[:2]
    found = compare_matrices(low[None], before)
    assert (found["directions"], found["overlap"]) == pytest.approx((2, 1))
    assert found["largest_angle"] < 1e-5 and found["overlap_by_chance"] == pytest.approx(2 / 12)
    # Equal singular values have no order, so that no leading ones can be told; all of them together can.
    orthogonal = left @ right
    missing = compare_matrices(orthogonal[None], before)
    assert missing["overlap"] is missing["largest_angle"] is missing["directions"] is None
    wide = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64)).Q[None]
    assert compare_matrices(wide, 2 * wide)["overlap"] is None
    changes = compare_layers([Layer("fc", orthogonal.T)], [Layer("fc", before[0].T)])
    (table, *_) = changes_tables({"weights": "a", "against": "b", "changes": changes})
    assert table.rows[0][-1] == "–" and "–" not in table.rows[0][:-1]
    # A group that died has no directions; the other one has.
    both = torch.stack([before[0], torch.zeros_like(before[0]) + 1e-60])
    after = torch.stack([before[0] + 0.1 * torch.randn_like(before[0]), torch.randn_like(before[0])])
    assert compare_matrices(after, both)["overlap"] == compare_matrices(after[:1], both[:1])["overlap"]
    with pytest.raises(InputError, match="all zero"):
        compare_matrices(torch.zeros_like(before), before)


def test_features_that_are_equal_or_not_finite() -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    with pytest.raises(InputError, match="all 30 feature rows are equal"):
        compare_features(x, np.full((30, 3), 0.1))
    with pytest.raises(InputError, match="NaN or infinity"):
        compare_features(x, np.full((30, 3), np.nan))
