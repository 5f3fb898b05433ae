"""The replacement table, compared with independent products, rankings and losses."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from linear_layer import linear

from reid.diagnostics import replacements
from reid.diagnostics.replacements import (
    VARIANTS,
    Head,
    equalities,
    output_features,
    output_scores,
    replaced_head,
    replacement_rows,
    training_loss,
)
from reid.model.eigenlayer import Eigenlayer
from reid.records import Features

D_IN, K, CLASSES = 9, 5, 4


def head(*, bias: bool = False, relu: bool = False, last: bool = False) -> Head:
    random = np.random.default_rng(4)
    weight = random.normal(size=(D_IN, K)) @ (np.eye(K) + 0.8)  # correlated columns
    classifier = linear(random.normal(size=(CLASSES, K)), random.normal(size=CLASSES))
    return Head(weight, random.normal(size=K) * 3 if bias else None, relu, None if last else classifier)


def features(rows: int, camera: int, seed: int) -> Features:
    random = np.random.default_rng(seed)
    identities = np.arange(rows) % CLASSES
    centres = np.random.default_rng(9).normal(size=(CLASSES, D_IN))
    values = (centres[identities] + random.normal(size=(rows, D_IN))).astype(np.float32)
    return Features(values, identities + 1, np.full(rows, camera))


QUERY, GALLERY = features(12, 1, 0), features(60, 2, 1)
TRAIN = dataclasses.replace(features(50, 3, 2), identities=np.arange(50) % CLASSES)


def brute_force(query: np.ndarray, gallery: np.ndarray) -> tuple[float, float]:
    """rank-1 and mAP of QUERY and GALLERY with other values; no junk among them."""
    first, precisions = [], []
    for row, identity in zip(query, QUERY.identities, strict=True):
        order = np.argsort(((gallery - row) ** 2).sum(axis=1), kind="stable")
        hits = GALLERY.identities[order] == identity
        first.append(hits[0])
        precisions.append(np.mean([hits[: n + 1].mean() for n in np.flatnonzero(hits)]))
    return float(np.mean(first)), float(np.mean(precisions))


def replaced(weight: np.ndarray) -> dict[str, np.ndarray]:
    """Every variant by NumPy; the columns of US and U in any order, which moves no distance."""
    u, s, vt = np.linalg.svd(weight, full_matrices=False)
    q, r = np.linalg.qr(weight)
    return {"Orig": weight, "US": u * s, "U": u, "UVt": u @ vt, "QD": q * np.diag(r)}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_output_is_that_of_the_layer(bias: bool, relu: bool) -> None:
    original = head(bias=bias, relu=relu)
    layer = Eigenlayer(D_IN, K, bias=bias, relu=relu).double()
    with torch.no_grad():
        layer.vectors.copy_(torch.from_numpy(original.weight))
        if original.bias is not None:
            layer.bias.copy_(torch.from_numpy(original.bias))
    expected = layer(torch.from_numpy(QUERY.values).double()).detach().numpy()
    np.testing.assert_allclose(original.output(QUERY.values), expected, rtol=1e-13)
    assert output_features(original, QUERY).values.dtype == np.float32
    np.testing.assert_array_equal(output_features(original, QUERY).values, expected.astype(np.float32))


def test_the_table_without_bias_and_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacements, "_BLOCK_ROWS", 8)  # several blocks
    original = head()
    rows = replacement_rows(original, QUERY, GALLERY, TRAIN, label_smoothing=0.1)
    assert [row["variant"] for row in rows] == list(VARIANTS)
    for row in rows:
        weight = replaced(original.weight)[row["variant"]]
        query, gallery = QUERY.values @ weight, GALLERY.values @ weight
        raw, unit = row["scores"]
        assert (raw["feature"], raw["normalized"], unit["normalized"]) == ("output", False, True)
        assert (raw["rank1"], raw["mAP"]) == pytest.approx(brute_force(query, gallery), abs=1e-12)
        query, gallery = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (query, gallery))
        assert (unit["rank1"], unit["mAP"]) == pytest.approx(brute_force(query, gallery), abs=1e-12)
        gram = np.abs(weight.T @ weight)
        assert row["correlation"] == pytest.approx(gram.trace() / gram.sum(), abs=1e-12)
        assert row["train_loss_before"] == rows[0]["train_loss_after"]
    by_name = {row["variant"]: row for row in rows}
    assert by_name["Orig"]["scores"] == by_name["US"]["scores"]
    assert by_name["U"]["scores"] == by_name["UVt"]["scores"]
    assert by_name["U"]["scores"] != by_name["Orig"]["scores"]
    assert by_name["Orig"]["correlation"] < 0.5
    assert by_name["US"]["train_loss_after"] != by_name["US"]["train_loss_before"]


@pytest.mark.parametrize("last", [False, True])
def test_loss_by_hand(last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacements, "_BLOCK_ROWS", 8)
    original = head(bias=True, relu=True, last=last)
    losses = []
    for row, label in zip(TRAIN.values.astype(np.float64), TRAIN.identities, strict=True):
        logits = np.maximum(row @ original.weight + original.bias, 0)
        if original.classifier is not None:
            logits = original.classifier.weight.detach().numpy() @ logits + original.classifier.bias.detach().numpy()
        target = np.full(len(logits), 0.2 / len(logits))
        target[label] += 0.8
        losses.append(sum(t * (math.log(np.exp(logits).sum()) - x) for t, x in zip(target, logits, strict=True)))
    assert training_loss(original, TRAIN, label_smoothing=0.2) == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert original.classes == (K if last else CLASSES)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_loss_that_is_no_number_is_none(broken: float) -> None:
    original = head(last=True)
    original.weight[1, 2] = broken
    assert training_loss(original, TRAIN, label_smoothing=0.2) is None


def compared(original: Head, pairs: int = 500) -> dict[tuple[str, str], dict[str, Any]]:
    rows = replacement_rows(original, QUERY, GALLERY, None)
    found = equalities(original, QUERY, GALLERY, rows, pairs=pairs, seed=7)
    assert (found["pairs"], found["bar"]) == (pairs, 1e-6)
    return {tuple(entry["variants"]): entry for entry in found["rows"]}


def test_equal_where_theory_demands_it_and_nowhere_else() -> None:
    found = compared(head())
    for pair in (("Orig", "US"), ("U", "UVt")):
        entry = found[pair]
        assert entry["demanded"] and entry["demanded_normalized"] and entry["equal"]
        assert entry["max_relative_deviation"] < 1e-12
        assert entry["largest_score_difference_raw"] == entry["largest_score_difference_normalized"] == 0
    for pair in (("Orig", "U"), ("Orig", "QD")):
        assert not found[pair]["demanded"] and not found[pair]["equal"]
        assert found[pair]["max_relative_deviation"] > 0.1


def test_deviation_and_score_difference_by_loops() -> None:
    original = head()
    entry = compared(original)["Orig", "QD"]
    random = np.random.default_rng(7)
    a, b = random.integers(len(QUERY.values), size=500), random.integers(len(GALLERY.values), size=500)
    weights, worst = replaced(original.weight), 0.0
    for i, j in zip(a, b, strict=True):
        h = QUERY.values[i].astype(np.float64) - GALLERY.values[j]
        first, second = (float(((h @ weights[name]) ** 2).sum()) for name in ("Orig", "QD"))
        worst = max(worst, abs(first - second) / max(first, second))
    assert entry["max_relative_deviation"] == pytest.approx(worst, rel=1e-9)
    scores = [output_scores(replaced_head(original, name), QUERY, GALLERY) for name in ("Orig", "QD")]
    for i, key in enumerate(("raw", "normalized")):
        gaps = [abs(scores[0][i][name] - scores[1][i][name]) for name in ("rank1", "rank5", "mAP", "mINP")]
        assert entry[f"largest_score_difference_{key}"] == max(gaps)


def test_a_wrong_replacement_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = replacements.replaced_head

    def slightly_off(original: Head, name: str, **options: Any) -> Head:
        found = right(original, name, **options)
        return dataclasses.replace(found, weight=found.weight * (1 + 1e-5)) if name == "US" else found

    monkeypatch.setattr(replacements, "replaced_head", slightly_off)
    found = compared(head())
    assert found["Orig", "US"]["equal"] is False
    assert found["U", "UVt"]["equal"] is True


def test_a_bias_keeps_distances_but_not_directions() -> None:
    found = compared(head(bias=True))["Orig", "US"]
    assert found["demanded"] and not found["demanded_normalized"]
    assert found["max_relative_deviation"] < 1e-10
    assert found["largest_score_difference_raw"] == 0
    assert found["largest_score_difference_normalized"] > 0


@pytest.mark.filterwarnings("ignore:.*zero and have no direction")
def test_after_a_relu_nothing_is_demanded() -> None:
    found = compared(head(relu=True))
    for entry in found.values():
        assert not entry["demanded"] and not entry["equal"] and entry["max_relative_deviation"] > 1e-3


def test_identical_images_have_no_relative_deviation() -> None:
    rows = replacement_rows(head(), QUERY, GALLERY, None)
    same = dataclasses.replace(QUERY, values=np.repeat(QUERY.values[:1], len(QUERY.values), axis=0))
    found = equalities(head(), same, same, rows, pairs=50, seed=0)
    assert all(entry["max_relative_deviation"] == 0 for entry in found["rows"])


def test_without_full_rank_qd_is_left_out_and_the_rest_stands() -> None:
    original = head()
    weight = original.weight.copy()
    weight[:, 3] = weight[:, 1] - weight[:, 0]
    original = dataclasses.replace(original, weight=weight)
    rows = replacement_rows(original, QUERY, GALLERY, TRAIN)
    assert "QD needs linearly independent" in rows[-1]["left_out"]
    assert (rows[-1]["correlation"], rows[-1]["train_loss_after"], rows[-1]["scores"]) == (None, None, [])
    assert all(row["scores"] for row in rows[:-1])
    found = {tuple(e["variants"]): e for e in equalities(original, QUERY, GALLERY, rows, pairs=99, seed=0)["rows"]}
    assert found["Orig", "US"]["equal"]
    assert found["Orig", "QD"]["equal"] is None
    assert found["Orig", "QD"]["largest_score_difference_raw"] is None


def test_without_training_images_no_loss() -> None:
    rows = replacement_rows(head(), QUERY, GALLERY, None)
    assert {row["train_loss_before"] for row in rows} | {row["train_loss_after"] for row in rows} == {None}
