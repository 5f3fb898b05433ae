"""Every number of a layer diagnosis, compared with loops in float64 NumPy."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from reid.decorrelation import condition_number, correlation_metric, replace_weight, severest_pair
from reid.diagnostics import weights
from reid.diagnostics.weights import Layer, diagnose_layer, measure_correlation
from reid.errors import InputError

RANDOM = np.random.default_rng(3)
CASES = {
    "linear": (RANDOM.normal(size=(12, 20)) + 0.7 * RANDOM.normal(size=20), 1),
    "more vectors than inputs": (RANDOM.normal(size=(20, 12)), 1),
    "convolution": (RANDOM.normal(size=(10, 3, 3, 2)) * RANDOM.uniform(0.1, 3, size=(10, 1, 1, 1)), 1),
    "grouped": (RANDOM.normal(size=(12, 2, 3, 3)) + 0.5, 3),
    "grouped, wide": (RANDOM.normal(size=(12, 1, 1, 2)), 2),
    "multiplier": (RANDOM.normal(size=(8, 1, 3, 3)), 4),
    "zero vector": (RANDOM.normal(size=(6, 9)) * (np.arange(6) != 2)[:, None], 1),
    "one input": (RANDOM.normal(size=(5, 1)), 1),
}


def expected(weight: np.ndarray, groups: int) -> dict[str, Any]:
    """The same numbers from the K x K Gram matrix of the vectors that are not zero, pair by pair."""
    rows = weight.reshape(len(weight), -1)
    norms, zero = np.sqrt((rows**2).sum(axis=1)), int((~rows.any(axis=1)).sum())
    rows = rows[rows.any(axis=1)]
    size, k = len(rows) // groups, len(rows)
    gram, cosines = np.zeros((k, k)), []
    for i in range(k):
        for j in range(k):
            if i // size == j // size:
                gram[i, j] = math.fsum(rows[i] * rows[j])
                if i < j:
                    lengths = math.sqrt(math.fsum(rows[i] ** 2) * math.fsum(rows[j] ** 2))
                    cosines.append(max(-1.0, min(1.0, gram[i, j] / lengths)))
    eigenvalues = np.sort(np.linalg.eigvalsh(gram))[::-1]
    # A group has at most min(D, K) eigenvalues above zero; the condition number is found over those.
    count = groups * min(rows.shape[1], size)
    kept = np.maximum(eigenvalues[:count], 0)
    share = kept[kept > 1e-20] / kept.sum()
    full = kept[-1] > 1e-12 * kept[0]
    return {
        "correlation": np.trace(gram) / np.abs(gram).sum(),
        "severest_pair": max(0.0, eigenvalues[-1]) / gram.diagonal().min(),
        "condition_number": math.sqrt(kept[0] / kept[-1]) if full else None,
        "effective_rank": math.exp(-(share * np.log(share)).sum()),
        "stable_rank": kept.sum() / kept[0],
        "largest_cosine": np.abs(cosines).max(),
        "mean_cosine": np.abs(cosines).mean(),
        "norm_ratio": math.sqrt(gram.diagonal().max() / gram.diagonal().min()),
        "dead_vectors": zero,
        "zero_vectors": zero,
        "spectrum": np.concatenate([np.sqrt(kept), np.zeros(zero)]),
        "norms": norms,
        "cosines": cosines,
    }


@pytest.mark.parametrize("name", CASES)
def test_numbers_of_a_layer(name: str) -> None:
    weight, groups = CASES[name]
    found = json.loads(json.dumps(diagnose_layer(Layer("a.weight", torch.from_numpy(weight), groups))))
    truth = expected(weight, groups)
    for key, value in found["measured"].items():
        wanted = truth[key]
        assert value == (wanted if wanted is None else pytest.approx(wanted, rel=1e-6, abs=1e-10)), key
    np.testing.assert_allclose(found["spectrum"], truth["spectrum"], atol=1e-6)
    np.testing.assert_allclose(found["norms"], truth["norms"], atol=1e-12)
    for name, values in (("spectrum", found["spectrum_expected"]), ("norms", found["norms_expected"])):
        assert len(values) == len(found[name])
        assert sorted(values, reverse=True) == values
        assert sum(v**2 for v in values) == pytest.approx(sum(v**2 for v in found[name]))
    counts = np.histogram(truth["cosines"], bins=200, range=(-1, 1))[0]
    assert found["histogram"]["counts"] == counts.tolist()
    assert sum(found["histogram"]["gaussian"]) == pytest.approx(len(truth["cosines"]))
    ordered = sorted(np.abs(truth["cosines"]), reverse=True)[:20]
    np.testing.assert_allclose([abs(pair["cos"]) for pair in found["pairs"]], ordered, atol=1e-9)
    assert found["d_in"] == weight[0].size and found["k"] == len(weight) and found["parameters"] == weight.size
    assert found["ratio"] == pytest.approx(found["measured"]["correlation"] / found["formula"]["correlation"])


def test_numbers_are_those_of_the_decorrelation_room() -> None:
    weight = torch.from_numpy(RANDOM.normal(size=(15, 30)) + 0.4)
    found = measure_correlation(Layer("a", weight).matrices())
    assert found["correlation"] == pytest.approx(correlation_metric(weight.T), rel=1e-12)
    assert found["severest_pair"] == pytest.approx(severest_pair(weight.T), rel=1e-12)
    assert found["condition_number"] == pytest.approx(condition_number(weight.T), rel=1e-12)


def test_after_us_all_is_orthogonal_and_the_spectrum_stays() -> None:
    weight = torch.from_numpy(RANDOM.normal(size=(16, 24)) + 0.5)
    before = diagnose_layer(Layer("a", weight))
    after = diagnose_layer(Layer("a", replace_weight(weight.T, variant="US").weight.T))
    assert after["measured"]["correlation"] == pytest.approx(1)
    assert after["measured"]["severest_pair"] == pytest.approx(1)
    assert after["measured"]["largest_cosine"] < 1e-12
    np.testing.assert_allclose(after["spectrum"], before["spectrum"])
    np.testing.assert_allclose(sorted(after["norms"], reverse=True), before["spectrum"])
    assert after["measured"]["effective_rank"] == pytest.approx(before["measured"]["effective_rank"])


def test_gram_picture_shows_the_families() -> None:
    """Vectors of three directions, shuffled: in the picture each family is a bright square, and all else is dark."""
    family = RANDOM.permutation(np.repeat([0, 1, 2], [4, 5, 6]))
    weight = np.eye(3, 40)[family] + 0.01 * RANDOM.normal(size=(15, 40))
    gram = diagnose_layer(Layer("a", torch.from_numpy(weight)))["gram"]
    assert gram["clustered"] and gram["block"] == 1 and gram["size"] == 15
    assert sorted(gram["order"]) == list(range(15))
    placed = family[gram["order"]]
    assert (np.diff(placed) != 0).sum() == 2
    pixels = np.frombuffer(base64.b64decode(gram["pixels"]), np.uint8).reshape(15, 15)
    rows = weight[gram["order"]] / np.linalg.norm(weight[gram["order"]], axis=1, keepdims=True)
    assert np.abs(pixels - np.abs(rows @ rows.T) * 255).max() <= 0.51


def test_large_gram_picture_keeps_the_largest_of_a_block() -> None:
    weight = RANDOM.normal(size=(1030, 64))
    weight[700] = -weight[13]
    found = diagnose_layer(Layer("a", torch.from_numpy(weight)))
    gram = found["gram"]
    assert gram["block"] == 3 and gram["size"] == 344
    pixels = np.frombuffer(base64.b64decode(gram["pixels"]), np.uint8).reshape(344, 344)
    rows = (weight / np.linalg.norm(weight, axis=1, keepdims=True))[gram["order"]]
    cosine = np.abs(rows @ rows.T) * (1 - np.eye(1030))
    for i, j in [(0, 0), (10, 200), (343, 5), (343, 343)]:
        assert pixels[i, j] == pytest.approx(255 * cosine[3 * i : 3 * i + 3, 3 * j : 3 * j + 3].max(), abs=0.51)
    assert pixels.max() == 255
    assert found["pairs"][0] == {"first": 13, "second": 700, "cos": pytest.approx(-1)}


def test_depthwise_kernels_make_no_pairs() -> None:
    found = json.loads(json.dumps(diagnose_layer(Layer("a", torch.randn(7, 1, 3, 3), 7))))
    assert found["kind"] == "depthwise convolution 3×3"
    assert {found["measured"][key] for key in ("correlation", "condition_number", "largest_cosine")} == {None}
    assert found["formula"] is found["gram"] is found["histogram"] is None and found["pairs"] == []
    assert len(found["norms"]) == 7


def test_the_same_seed_draws_the_same() -> None:
    layer = Layer("a", torch.randn(8, 10))
    assert diagnose_layer(layer, seed=1)["simulation"] == diagnose_layer(layer, seed=1)["simulation"]
    assert diagnose_layer(layer, seed=1)["simulation"] != diagnose_layer(layer, seed=2)["simulation"]


def test_bad_weights_are_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.ones(3, 4, 2, 2)
    weight[2, 1, 0, 1], weight[0, 3, 1, 1] = torch.nan, torch.inf
    message = r"a\.weight: 2 of 48 entries are NaN or infinite, at \[0, 3, 1, 1\], \[2, 1, 0, 1\]; has"
    with pytest.raises(InputError, match=message):
        diagnose_layer(Layer("a.weight", weight))
    with pytest.raises(InputError, match=r"1,000 of 1,000 entries.*\.\.\.; has"):
        diagnose_layer(Layer("a.weight", torch.full((10, 100), torch.nan)))
    with pytest.raises(InputError, match=r"a\.weight: all 12 entries are zero"):
        diagnose_layer(Layer("a.weight", torch.zeros(3, 4)))
    for tensor in (torch.ones(3), torch.ones(0, 3), torch.ones(2, 3, dtype=torch.int64)):
        with pytest.raises(InputError, match="is not a weight of a linear or convolution layer"):
            Layer("a", tensor)
    monkeypatch.setattr(weights, "MAX_VECTORS", 5)
    with pytest.raises(InputError, match="6 weight vectors are too many to compare; at most 5"):
        diagnose_layer(Layer("a", torch.randn(6, 3)))
    assert measure_correlation(Layer("a", torch.randn(6, 1, 3, 3), 6).matrices())["correlation"] is None


def test_half_precision_is_measured_as_it_is() -> None:
    weight = torch.randn(6, 9).to(torch.bfloat16)
    found = measure_correlation(Layer("a", weight).matrices())
    assert found["correlation"] == pytest.approx(correlation_metric(weight.to(torch.float64).T))


@pytest.mark.parametrize("largest", [1e200, 1e-200])
def test_entries_whose_squares_leave_float64_are_reported(largest: float) -> None:
    with pytest.raises(InputError, match=r"largest entry, 1e.200, is out of"):
        diagnose_layer(Layer("far", torch.eye(3, dtype=torch.float64) * largest))
