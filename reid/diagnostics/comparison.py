"""Comparison of two checkpoints on the same queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.ranking import Ranking
from reid.records import Features


@dataclass(frozen=True)
class RankingChange:
    """Difference between two rankings of the same Q queries.

    The number of repaired queries minus that of broken ones is the gain in rank-1, in queries.

    Attributes:
        difference: (Q,) float64 AP after - before; NaN for a query without a true match.
        repaired: (Q,) bool, the result at rank 1 changed from wrong to right.
        broken: (Q,) bool, the result at rank 1 changed from right to wrong.
    """

    difference: np.ndarray
    repaired: np.ndarray
    broken: np.ndarray

    def largest_changes(self, count: int) -> np.ndarray:
        """Find the queries whose AP changed most in either direction.

        Args:
            count: Maximum number of queries.

        Returns:
            (min(count, valid queries),) int64 query rows, largest change first, ties by row.
        """
        valid = np.flatnonzero(~np.isnan(self.difference))
        return valid[np.argsort(-np.abs(self.difference[valid]), kind="stable")[: max(count, 0)]]

    def label(self, query: int) -> str:
        """Describe the change of one query.

        Args:
            query: Row of the query.

        Returns:
            "repaired", "broken", or "kept" if the result at rank 1 is as right or wrong as before.
        """
        return "repaired" if self.repaired[query] else "broken" if self.broken[query] else "kept"


def compare_rankings(before: Ranking, after: Ranking) -> RankingChange:
    """Compare two rankings query by query.

    Args:
        before: Ranking of the reference.
        after: Ranking of the same queries and gallery, in the same order.

    Returns:
        The change from `before` to `after`.

    Raises:
        ValueError: If the rankings have different queries or galleries.
    """
    if (before.matches != after.matches).any():
        raise ValueError("the two rankings are not of the same queries and gallery")
    right_before, right_after = before.first_hit == 1, after.first_hit == 1
    difference = after.average_precision - before.average_precision
    return RankingChange(difference, ~right_before & right_after, right_before & ~right_after)


def align(features: Features, reference: Features, *, part: str) -> Features:
    """Reorder features to the image order of other features.

    Images are matched by file name, so that the dataset may be in another folder, or by the whole path if file names
    repeat. If either side has no paths, the rows must agree in number and labels as they are.

    Args:
        features: Features to reorder.
        reference: Features of the same images.
        part: "query" or "gallery", for error messages.

    Returns:
        The rows of `features` in the order of `reference`.

    Raises:
        InputError: If an image is on one side only, or its labels differ.
    """
    if not (features.paths and reference.paths):
        order = np.arange(len(features.values))
        if len(features.values) != len(reference.values):
            raise InputError(f"{len(reference.values)} {part} images on one side, {len(features.values)} on the other")
    else:
        order = _matching_order(features.paths, reference.paths, part)
    same = (features.identities[order] == reference.identities) & (features.cameras[order] == reference.cameras)
    if not same.all():
        row = int(np.flatnonzero(~same)[0])
        name = f" ({reference.paths[row]})" if reference.paths else ""
        raise InputError(
            f"{part} row {row}{name} is identity {reference.identities[row]}, camera {reference.cameras[row]} on one "
            f"side and {features.identities[order[row]]}, {features.cameras[order[row]]} on the other"
        )
    paths = reference.paths or tuple(features.paths[index] for index in order.tolist() if features.paths)
    return dataclasses.replace(
        features, values=features.values[order], identities=reference.identities, cameras=reference.cameras, paths=paths
    )


def _matching_order(paths: tuple[str, ...], reference: tuple[str, ...], part: str) -> np.ndarray:
    """Indices into `paths` of the images of `reference`."""
    names, wanted = _file_names(paths), _file_names(reference)
    if names is None or wanted is None:
        names, wanted = list(paths), list(reference)
    index_of = {name: index for index, name in enumerate(names)}
    missing = [name for name in wanted if name not in index_of]
    extra = set(index_of) - set(wanted)
    if missing or extra:
        example = missing[0] if missing else min(extra)
        raise InputError(
            f"{part} image {example} is on one side only ({len(missing) + len(extra)} such, of {len(wanted)} and "
            f"{len(names)}); compare checkpoints on one dataset, with --config-file or DATASETS.NAME"
        )
    if len(index_of) < len(names) or len(names) != len(wanted):
        raise InputError(f"the {part} contains an image twice, so the two sides cannot be matched")
    return np.array([index_of[name] for name in wanted], dtype=np.int64)


def _file_names(paths: tuple[str, ...]) -> list[str] | None:
    """The file names, or None if one repeats."""
    names = [path.replace("\\", "/").rpartition("/")[2] for path in paths]
    return names if len(set(names)) == len(names) else None


def is_gain_of_rri(
    weights: Path, content: Mapping[str, Any], against: Path, other: Mapping[str, Any]
) -> tuple[bool, str]:
    """Decide whether the difference between two checkpoints is the gain of RRI over its control.

    It is one only if the first checkpoint is of an RRI run and the second of its control, in the same run folder, after
    the same stages and epochs.

    Args:
        weights: Path of the checkpoint.
        content: Its content, as `reid.io.checkpoint.load_checkpoint` returns it.
        against: Path of the checkpoint it is compared with.
        other: Content of that one.

    Returns:
        The decision, and the reason in words.
    """
    runs = [str((c.get("position") or {}).get("run", "")) for c in (content, other)]
    if runs != ["rri", "control"] or not (weights.name.startswith("rri_") and against.name.startswith("control_")):
        return False, "not a checkpoint of an RRI run and one of its control"
    if weights.resolve().parent != against.resolve().parent:
        return False, "an RRI checkpoint and the control of a different run"
    epochs = [_epochs_by_stage(c) for c in (content, other)]
    if epochs[0] != epochs[1]:
        totals = [sum(stages.values()) for stages in epochs]
        return False, f"RRI after {totals[0]} epochs and the control after {totals[1]}, with different schedules"
    return True, f"RRI and its control, each after {sum(epochs[0].values())} epochs"


def _epochs_by_stage(content: Mapping[str, Any]) -> dict[tuple[str, int], int]:
    """Epochs trained in each stage up to a checkpoint, including the unfinished stage."""
    epochs = {(row["stage"], row["round"]): row["epochs"] for row in content.get("rows", ())}
    position = content["position"]
    if position.get("epoch"):
        epochs[position["stage"], position["round"]] = position["epoch"]
    return epochs
