"""Weight vectors of very different lengths: every measure against mpmath, and what dead vectors change."""

from __future__ import annotations

import json

import mpmath_measures
import pytest
import torch

from reid.diagnostics.identities import identity_pairs
from reid.diagnostics.survey import find_layers, survey
from reid.diagnostics.weights import Layer, diagnose_layer, measure_correlation
from reid.report.diagnosis_tables import layer_table, survey_cells

# Six living vectors and, from 1e-20 on, four dead ones, of which one is zero.
LENGTHS = torch.tensor([1e-9, 1e-30, 1.0, 1e-3, 0.0, 1e-20, 0.5, 1e-6, 2e-45, 1e-11], dtype=torch.float64)
ALIVE = LENGTHS > 1e-12


def close(found: dict[str, float], truth: dict[str, float]) -> None:
    for name, value in truth.items():
        assert found[name] == pytest.approx(value, rel=1e-7), name


@pytest.mark.parametrize("family", ["independent", "correlated", "orthogonal", "twins"])
def test_measures_are_those_of_the_living_vectors(family: str) -> None:
    columns = mpmath_measures.families(12, 10)[family] * LENGTHS
    found = measure_correlation(Layer("a", columns.T).matrices())
    close(found, mpmath_measures.measures([columns[:, ALIVE]]))
    assert (found["dead_vectors"], found["zero_vectors"]) == (4, 1)
    # What dead vectors contribute to these is below rounding.
    everyone = mpmath_measures.measures([columns[:, LENGTHS > 0]])
    close(found, {name: everyone[name] for name in ("correlation", "effective_rank", "stable_rank")})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shortest", [1.0, 1e-6])
def test_measures_in_any_dtype(dtype: torch.dtype, shortest: float) -> None:
    columns = mpmath_measures.families(6, 4)["correlated"] * mpmath_measures.lengths(4, shortest)
    weight = columns.T.to(dtype)
    found = measure_correlation(Layer("a", weight).matrices())
    close(found, mpmath_measures.measures([weight.T]))
    assert found["dead_vectors"] == 0


def test_groups_with_different_numbers_of_dead_vectors() -> None:
    families = mpmath_measures.families(6, 4)
    factors = torch.tensor([[1.0, 1e-3, 1e-30, 0.1], [1e-2, 1e-2, 1e-9, 1e-2], [1e-45, 1e-20, 1e-40, 0.0]]).double()
    blocks = [families[name] * own for name, own in zip(("twins", "correlated", "twins"), factors, strict=True)]
    weight = torch.cat([block.T for block in blocks]).reshape(12, 6, 1, 1)
    found = diagnose_layer(Layer("a", weight, groups=3))
    close(found["measured"], mpmath_measures.measures([blocks[0][:, [0, 1, 3]], blocks[1]]))
    assert (found["measured"]["dead_vectors"], found["measured"]["zero_vectors"]) == (5, 1)
    assert sum(found["histogram"]["counts"]) == len(found["pairs"]) == 3 + 6
    assert not {2, 8, 9, 10, 11} & {pair[side] for pair in found["pairs"] for side in ("first", "second")}


def test_vectors_that_died_are_as_if_they_were_not_there() -> None:
    """The reference and all that is drawn, too: dead vectors in the same direction are no finding."""
    alive = torch.randn(10, 24, generator=torch.Generator().manual_seed(0))
    weight = torch.cat([alive, torch.full((6, 24), 3e-42)])
    small, full = diagnose_layer(Layer("a", alive)), diagnose_layer(Layer("a", weight))
    assert (full["measured"].pop("dead_vectors"), small["measured"].pop("dead_vectors")) == (6, 0)
    for key in ("measured", "formula", "ratio"):
        assert full[key] == pytest.approx(small[key], rel=1e-12), key
    assert full["simulation"] == small["simulation"] and full["histogram"] == small["histogram"]
    assert [tuple(pair.values()) for pair in full["pairs"]] == [
        pytest.approx(tuple(pair.values())) for pair in small["pairs"]
    ]
    assert full["norms"][10:] == pytest.approx([3e-42 * 24**0.5] * 6, rel=1e-3)
    rows = {row["name"]: row for row in survey(find_layers({"small.weight": alive, "full.weight": weight}))}
    assert rows["full.weight"]["ratio"] == pytest.approx(rows["small.weight"]["ratio"])
    assert [survey_cells(rows[f"{name}.weight"])[2] for name in ("full", "small")] == ["24 × 16, 6 dead", "24 × 10"]
    assert (layer_table(full | {"measured": full["measured"] | {"dead_vectors": 6}}).title or "").endswith("6 dead")
    assert len(identity_pairs(weight, count=100)) == 45


def test_a_single_living_vector_makes_no_pair() -> None:
    weight = torch.tensor([[1.0, 2.0], [1e-30, 0.0], [0.0, 0.0]])
    found = json.loads(json.dumps(diagnose_layer(Layer("a", weight)), allow_nan=False))
    assert found["measured"]["correlation"] is found["measured"]["largest_cosine"] is found["gram"] is None
    assert (found["measured"]["dead_vectors"], found["measured"]["norm_ratio"], found["pairs"]) == (2, 1.0, [])


def test_squares_that_underflow() -> None:
    weight = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight[1] *= 1e-200
    found = diagnose_layer(Layer("a", weight))
    assert (found["measured"]["dead_vectors"], found["measured"]["zero_vectors"]) == (1, 0)
    assert found["norms"][1] == pytest.approx(1e-200 * float(torch.linalg.vector_norm(weight[1] * 1e200)), rel=1e-12)
    pairs = identity_pairs(weight * 1e-100)
    assert [(pair["first_row"], pair["second_row"]) for pair in pairs] == [(0, 2)]
    assert pairs[0]["cos"] == pytest.approx(float(torch.cosine_similarity(weight[0], weight[2], dim=0)))
