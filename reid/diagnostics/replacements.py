"""Effect of replacing the Eigenlayer's weight without retraining, as compared in Sun et al. 2017.

The Eigenlayer's input does not depend on its weight, so it is extracted once, and the output for any other weight is a
float64 product.
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

from reid.decorrelation import correlation_metric, replace_weight
from reid.errors import InputError
from reid.evaluation.retrieval import score
from reid.losses.identity import identity_loss
from reid.model.network import ReidNetwork
from reid.progress import track
from reid.records import Features, score_list

VARIANTS = {"Orig": "none", "US": "US", "U": "U", "UVt": "UVt", "QD": "QD"}
# W W^T determines the distances: (US)(US)^T = W W^T, and U U^T = (U V^T)(U V^T)^T. The other pairs need not agree.
EQUAL = (("Orig", "US"), ("U", "UVt"))
COMPARED = (*EQUAL, ("Orig", "U"), ("Orig", "QD"))
EQUALITY_TOLERANCE = 1e-6
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Head:
    """The layers after the Eigenlayer's input, in float64.

    Attributes:
        weight: W, (D_in, K) float64.
        bias: (K,) float64 or None.
        relu: Whether a ReLU follows the Eigenlayer.
        classifier: A float64 layer in evaluation mode, or None if the Eigenlayer is the last layer, so that its output
            is the logits.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    relu: bool
    classifier: nn.Linear | None

    @classmethod
    def from_model(cls, model: ReidNetwork) -> Head:
        """Copy the head of a network.

        Args:
            model: Network whose Eigenlayer and classifier are copied.

        Returns:
            Copy in float64 on the CPU.
        """
        layer, last = model.eigenlayer, model.classifier
        return cls(
            weight=_array(layer.vectors),
            bias=None if layer.bias is None else _array(layer.bias),
            relu=layer.relu,
            classifier=None if last is None else copy.deepcopy(last).cpu().double().eval(),
        )

    @property
    def classes(self) -> int:
        """Number of identities that the logits distinguish."""
        return self.weight.shape[1] if self.classifier is None else self.classifier.out_features

    @property
    def is_identity(self) -> bool:
        """Whether the output equals the input."""
        unchanged = not self.relu and (self.bias is None or not self.bias.any())
        return unchanged and np.array_equal(self.weight, np.eye(len(self.weight)))

    def output(self, values: np.ndarray) -> np.ndarray:
        """Compute the Eigenlayer's output.

        Args:
            values: (N, D_in) floating, the Eigenlayer's input.

        Returns:
            (N, K) float64.
        """
        product = values.astype(np.float64) @ self.weight
        if self.bias is not None:
            product += self.bias
        return np.maximum(product, 0.0) if self.relu else product

    def logits(self, values: np.ndarray) -> np.ndarray:
        """Compute the logits in evaluation mode.

        Args:
            values: (N, D_in) floating, the Eigenlayer's input.

        Returns:
            (N, classes) float64.
        """
        output = self.output(values)
        if self.classifier is None:
            return output
        with torch.no_grad():
            logits: np.ndarray = self.classifier(torch.from_numpy(output)).numpy()
        return logits


def output_features(head: Head, features: Features) -> Features:
    """Compute the Eigenlayer's output for features of its input.

    Args:
        head: Eigenlayer to apply.
        features: The Eigenlayer's input.

    Returns:
        (N, K) features, multiplied in float64 and rounded to float32 for the ranking.
    """
    parts = [head.output(rows).astype(np.float32) for rows in _blocks(features.values)]
    return dataclasses.replace(features, values=np.concatenate(parts))


def training_loss(head: Head, train: Features | None, *, label_smoothing: float) -> float | None:
    """Compute the mean identity loss in evaluation mode.

    Args:
        head: Eigenlayer and classifier that compute the logits.
        train: The Eigenlayer's input, with classes as identities; None if the network was trained on other identities.
        label_smoothing: Label smoothing of the loss, in [0, 1).

    Returns:
        The loss in nats, or None if `train` is None or the loss is not finite.
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
    """Evaluate each of `VARIANTS` in place of the Eigenlayer's weight.

    Args:
        head: The original head; the classifier is not changed.
        query: The Eigenlayer's input.
        gallery: The Eigenlayer's input.
        train: The Eigenlayer's input, with classes as identities; None to measure no loss.
        label_smoothing: Label smoothing of the loss, in [0, 1).
        order: Order of the columns in US and U.

    Returns:
        A row per variant with "variant", "correlation" (S(W)), "train_loss_before", "train_loss_after" and "scores"
        (SCOREs of the output, raw and L2-normalized). For a variant that does not exist, such as QD of a weight without
        full rank, "left_out" states why, loss and S(W) are None, and "scores" is empty.
    """
    before = training_loss(head, train, label_smoothing=label_smoothing)
    rows = []
    for name in track(VARIANTS, "replacements", unit="variants"):
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
    """Replace the weight of a head.

    Args:
        head: Head whose W is replaced in a copy.
        name: One of `VARIANTS`.
        order: Order of the columns in US and U.

    Returns:
        The head with the new weight, and the same bias and classifier.

    Raises:
        InputError: If the variant does not exist for this weight, see `replace_weight`.
    """
    replacement = replace_weight(torch.from_numpy(head.weight), variant=VARIANTS[name], order=order)
    return dataclasses.replace(head, weight=replacement.weight.numpy())


def output_scores(head: Head, query: Features, gallery: Features) -> list[dict[str, Any]]:
    """Score the retrieval with the Eigenlayer's output.

    Args:
        head: Eigenlayer to apply.
        query: The Eigenlayer's input.
        gallery: The Eigenlayer's input.

    Returns:
        SCOREs, raw and L2-normalized.
    """
    return score_list(score({("output", False): (output_features(head, query), output_features(head, gallery))}))


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
    """Compare the distances and scores of variants over random pairs of a query and a gallery image.

    Args:
        head: Head with the original W.
        query: The Eigenlayer's input.
        gallery: The Eigenlayer's input.
        rows: Value returned by `replacement_rows`.
        pairs: Number of pairs, drawn with replacement.
        seed: Seed of the pairs.
        order: Order of the columns in US and U.

    Returns:
        "pairs", "bar" (`EQUALITY_TOLERANCE`) and "rows", one for each of `COMPARED`: "variants"; "demanded" and
        "demanded_normalized", whether theory requires equal distances (not after a ReLU) and equal L2-normalized
        distances (not with a bias either); "max_relative_deviation", the largest |a - b| / max(a, b) of squared
        distances in float64 (0 if both are 0), None if a variant does not exist; "equal", whether that is at most
        `EQUALITY_TOLERANCE`; "largest_score_difference_raw" and "..._normalized" over rank-1, rank-5, mAP and mINP.
    """
    random = np.random.default_rng(seed)
    indices = random.integers(len(query.values), size=pairs), random.integers(len(gallery.values), size=pairs)
    first, second = query.values[indices[0]], gallery.values[indices[1]]
    by_name = {row["variant"]: row for row in rows}
    distances = {}
    for name, row in by_name.items():
        if "left_out" not in row:
            variant = replaced_head(head, name, order=order)
            distances[name] = _squared_distances(variant, first, second)
    compared = []
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
            entry["equal"] = deviation <= EQUALITY_TOLERANCE
        for normalized, key in ((False, "raw"), (True, "normalized")):
            entry[f"largest_score_difference_{key}"] = _score_difference(by_name[a], by_name[b], normalized)
        compared.append(entry)
    return {"pairs": pairs, "bar": EQUALITY_TOLERANCE, "rows": compared}


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
    for start in range(0, len(values), _BLOCK_ROWS):
        yield values[start : start + _BLOCK_ROWS]


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().to(torch.float64).numpy().copy()
