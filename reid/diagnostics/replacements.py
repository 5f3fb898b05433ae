"""What replacing the Eigenlayer's weight does without retraining: the comparison of Sun et al. 2017.

The Eigenlayer's input doesn't depend on its weight, so it is extracted once, and what the network would give with any
other weight is a product in float64.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from reid.decorrelation import correlation_metric, replace_weight
from reid.errors import InputError
from reid.evaluation.retrieval import score
from reid.losses.identity import identity_loss
from reid.model.network import ReidNetwork
from reid.records import Features, score_list

VARIANTS = {"Orig": "none", "US": "US", "U": "U", "UVt": "UVt", "QD": "QD"}
# W W^T decides the distances: (US)(US)^T = W W^T, and U U^T = (U V^T)(U V^T)^T; nothing makes the others agree.
EQUAL = (("Orig", "US"), ("U", "UVt"))
COMPARED = (*EQUAL, ("Orig", "U"), ("Orig", "QD"))
BAR = 1e-6
_ROWS = 4096


@dataclass(frozen=True)
class Head:
    """What follows the Eigenlayer's input, float64 NumPy arrays.

    weight: W, (D_in, K). bias: (K,) or None. classifier: a float64 layer in evaluation mode, or None where the
    Eigenlayer is the last layer, so that its output is the logits.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    relu: bool
    classifier: nn.Linear | None

    @classmethod
    def of(cls, model: ReidNetwork) -> Head:
        """The head of a network, copied."""
        layer, last = model.eigenlayer, model.classifier
        return cls(
            weight=_array(layer.vectors),
            bias=None if layer.bias is None else _array(layer.bias),
            relu=layer.relu,
            classifier=None if last is None else copy.deepcopy(last).cpu().double().eval(),
        )

    @property
    def classes(self) -> int:
        """How many identities the logits tell apart."""
        return self.weight.shape[1] if self.classifier is None else self.classifier.out_features

    def output(self, values: np.ndarray) -> np.ndarray:
        """The Eigenlayer's output, (N, K) float64, of its input (N, D_in) floating."""
        product = values.astype(np.float64) @ self.weight
        if self.bias is not None:
            product += self.bias
        return np.maximum(product, 0.0) if self.relu else product

    def logits(self, values: np.ndarray) -> np.ndarray:
        """What the loss sees in evaluation mode, (N, classes) float64, of the Eigenlayer's input (N, D_in)."""
        output = self.output(values)
        if self.classifier is None:
            return output
        with torch.no_grad():
            logits: np.ndarray = self.classifier(torch.from_numpy(output)).numpy()
        return logits


def embed(head: Head, features: Features) -> Features:
    """The Eigenlayer's output, (N, K), multiplied in float64 and rounded to float32, as the ranking takes it."""
    parts = [head.output(rows).astype(np.float32) for rows in _blocks(features.values)]
    return dataclasses.replace(features, values=np.concatenate(parts))


def training_loss(head: Head, train: Features | None, *, label_smoothing: float) -> float | None:
    """Mean identity loss in nats, evaluation mode; the identities of `train`, the Eigenlayer's input, are classes.

    None where `train` is None: the network tells other identities apart than the dataset has; and where the loss is no
    number, as with a classifier that holds NaN or infinity.
    """
    if train is None:
        return None
    total, start = 0.0, 0
    for rows in _blocks(train.values):
        labels = torch.from_numpy(train.identities[start : start + len(rows)])
        logits = torch.from_numpy(head.logits(rows))
        total += identity_loss(logits, labels, label_smoothing=label_smoothing).item() * len(rows)
        start += len(rows)
    return total / start if math.isfinite(total) else None


def replacement_rows(
    head: Head,
    query: Features,
    gallery: Features,
    train: Features | None,
    *,
    label_smoothing: float = 0.0,
    order: str = "assignment",
) -> list[dict[str, Any]]:
    """A row for each of `VARIANTS`: its name, S(W), the training loss before and after, and the scores.

    query, gallery, train: the Eigenlayer's input; the identities of `train` are classes, None: no loss is measured.
    The classifier stays as it is. "scores" are SCOREs of the output, raw and L2-normalized. Where a variant does not
    exist, as QD of a weight without full rank, "left_out" says why; loss and S(W) are None and there is no score.
    """
    before = training_loss(head, train, label_smoothing=label_smoothing)
    rows = []
    for name in tqdm(VARIANTS, desc="replacements", unit="variant", leave=False):
        row: dict[str, Any] = {"variant": name, "correlation": None, "train_loss_before": before}
        try:
            replaced = replaced_head(head, name, order=order)
        except InputError as error:
            rows.append({**row, "train_loss_after": None, "scores": [], "left_out": str(error)})
            continue
        row["correlation"] = correlation_metric(torch.from_numpy(replaced.weight))
        row["train_loss_after"] = training_loss(replaced, train, label_smoothing=label_smoothing)
        rows.append({**row, "scores": output_scores(replaced, query, gallery)})
    return rows


def replaced_head(head: Head, name: str, *, order: str = "assignment") -> Head:
    """The head with another of `VARIANTS` as its weight; bias and classifier stay. Raises as `replace_weight` does."""
    replacement = replace_weight(torch.from_numpy(head.weight), variant=VARIANTS[name], order=order)
    return dataclasses.replace(head, weight=replacement.weight.numpy())


def output_scores(head: Head, query: Features, gallery: Features) -> list[dict[str, Any]]:
    """SCOREs of the output, raw and L2-normalized; query and gallery are the Eigenlayer's input."""
    return score_list(score({("output", False): (embed(head, query), embed(head, gallery))}))


def equalities(
    head: Head,
    query: Features,
    gallery: Features,
    rows: list[dict[str, Any]],
    *,
    pairs: int,
    seed: int,
    order: str = "assignment",
) -> dict[str, Any]:
    """Which variants agree, over random pairs of a query and a gallery image, drawn from `seed` with repetition.

    rows: what `replacement_rows` gave. Of each of `COMPARED`: max_relative_deviation, the largest |a - b| / max(a, b)
    of the squared distances a and b of a pair in float64 (0 where both are 0), or None where a variant was left out;
    largest_score_difference, raw and normalized, over rank-1, rank-5, mAP and mINP; and whether theory demands the
    distances (not after a ReLU) and the L2-normalized distances (not with a bias either) to agree. `equal` is whether
    the deviation is at most `BAR`.
    """
    random = np.random.default_rng(seed)
    places = random.integers(len(query.values), size=pairs), random.integers(len(gallery.values), size=pairs)
    first, second = query.values[places[0]], gallery.values[places[1]]
    by_name = {row["variant"]: row for row in rows}
    distances = {}
    for name, row in by_name.items():
        if "left_out" not in row:
            variant = replaced_head(head, name, order=order)
            distances[name] = _squared_distances(variant, first, second)
    found = []
    for a, b in COMPARED:
        demanded = (a, b) in EQUAL and not head.relu
        entry: dict[str, Any] = {
            "variants": [a, b],
            "demanded": demanded,
            "demanded_normalized": demanded and head.bias is None,
            "max_relative_deviation": None,
            "equal": None,
        }
        if a in distances and b in distances:
            entry["max_relative_deviation"] = deviation = _relative_deviation(distances[a], distances[b])
            entry["equal"] = deviation <= BAR
        for normalized, key in ((False, "raw"), (True, "normalized")):
            entry[f"largest_score_difference_{key}"] = _score_difference(by_name[a], by_name[b], normalized)
        found.append(entry)
    return {"pairs": pairs, "bar": BAR, "rows": found}


def _squared_distances(head: Head, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """|f1 - f2|^2 of the outputs, (pairs,) float64."""
    blocks = zip(_blocks(first), _blocks(second), strict=True)
    return np.concatenate([((head.output(a) - head.output(b)) ** 2).sum(axis=1) for a, b in blocks])


def _relative_deviation(a: np.ndarray, b: np.ndarray) -> float:
    larger = np.maximum(a, b)
    return float((np.abs(a - b) / np.where(larger > 0, larger, 1.0)).max())


def _score_difference(a: dict[str, Any], b: dict[str, Any], normalized: bool) -> float | None:
    chosen = [next((s for s in row["scores"] if s["normalized"] == normalized), None) for row in (a, b)]
    if chosen[0] is None or chosen[1] is None:
        return None
    return max(abs(chosen[0][key] - chosen[1][key]) for key in ("rank1", "rank5", "mAP", "mINP"))


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(values), _ROWS):
        yield values[start : start + _ROWS]


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().to(torch.float64).numpy().copy()
