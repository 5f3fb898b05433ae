"""Two checkpoints on the same queries: what one of them repaired, what it broke, and what the difference is called."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.ranking import Ranking
from reid.records import Features


@dataclass(frozen=True)
class Change:
    """From one ranking to another of the same Q queries.

    difference: (Q,) float64, AP after - before; NaN for a query without a true match. repaired, broken: (Q,) bool, the
    first answer turned from wrong to right, or from right to wrong. The repaired less the broken are thus what rank-1
    gained, in queries.
    """

    difference: np.ndarray
    repaired: np.ndarray
    broken: np.ndarray

    def largest_first(self, count: int) -> np.ndarray:
        """(min(count, valid queries),) int64: the queries whose AP changed most, either way, equal ones by row."""
        valid = np.flatnonzero(~np.isnan(self.difference))
        return valid[np.argsort(-np.abs(self.difference[valid]), kind="stable")[: max(count, 0)]]

    def of(self, query: int) -> str:
        """ "repaired", "broken" or "kept" (the first answer is as right or wrong as before)."""
        return "repaired" if self.repaired[query] else "broken" if self.broken[query] else "kept"


def change(before: Ranking, after: Ranking) -> Change:
    """Compare two rankings query by query; the queries and the gallery must be the same, in the same order."""
    if (before.matches != after.matches).any():
        raise ValueError("the two rankings are not of the same queries and gallery")
    was, now = before.first_hit == 1, after.first_hit == 1
    return Change(after.average_precision - before.average_precision, ~was & now, was & ~now)


def align(features: Features, like: Features, *, part: str) -> Features:
    """The rows of `features` in the order of `like`, which must hold the same images: same file, identity, camera.

    Files are told apart by name alone, so that the dataset may lie elsewhere, or by their whole path where names
    repeat. Without paths on a side the rows must agree in their labels as they stand. part: "query" or "gallery", for
    the error. Raises InputError for an image that only one side has and for one whose labels differ.
    """
    if not (features.paths and like.paths):
        order = np.arange(len(features.values))
        if len(features.values) != len(like.values):
            raise InputError(f"{len(like.values)} {part} images on one side, {len(features.values)} on the other")
    else:
        names, wanted = _names(features.paths), _names(like.paths)
        if None in (names, wanted):
            names, wanted = list(features.paths), list(like.paths)
        assert names is not None and wanted is not None
        places = {name: place for place, name in enumerate(names)}
        missing = [name for name in wanted if name not in places]
        extra = set(places) - set(wanted)
        if missing or extra:
            one = missing[0] if missing else min(extra)
            raise InputError(
                f"{part} image {one} is on one side only ({len(missing) + len(extra)} such, of {len(wanted)} and "
                f"{len(names)}); compare checkpoints on one dataset, with --config-file or DATASETS.NAME"
            )
        if len(places) < len(names) or len(names) != len(wanted):
            raise InputError(f"the {part} holds an image twice, so the two sides cannot be told to be the same")
        order = np.array([places[name] for name in wanted], dtype=np.int64)
    same = (features.identities[order] == like.identities) & (features.cameras[order] == like.cameras)
    if not same.all():
        row = int(np.flatnonzero(~same)[0])
        name = f" ({like.paths[row]})" if like.paths else ""
        raise InputError(
            f"{part} row {row}{name} is identity {like.identities[row]}, camera {like.cameras[row]} on one side and "
            f"{features.identities[order[row]]}, {features.cameras[order[row]]} on the other"
        )
    paths = like.paths or tuple(features.paths[place] for place in order.tolist() if features.paths)
    return dataclasses.replace(
        features, values=features.values[order], identities=like.identities, cameras=like.cameras, paths=paths
    )


def is_gain_of_rri(
    weights: Path, content: Mapping[str, Any], against: Path, other: Mapping[str, Any]
) -> tuple[bool, str]:
    """Whether `weights` less `against` is what RRI gained over its control, and the reason in words.

    weights, against: files; content, other: what `reid.io.checkpoint.load_checkpoint` read from them. It is one only where
    the first is of an RRI run and the second of its control, in one run folder, after the same stages and epochs.
    """
    runs = [str((c.get("position") or {}).get("run", "")) for c in (content, other)]
    if runs != ["rri", "control"] or not (weights.name.startswith("rri_") and against.name.startswith("control_")):
        return False, "not a checkpoint of an RRI run against one of its control"
    if weights.resolve().parent != against.resolve().parent:
        return False, "an RRI checkpoint and a control of another run"
    epochs = [_epochs(c) for c in (content, other)]
    if epochs[0] != epochs[1]:
        totals = [sum(course.values()) for course in epochs]
        return False, f"RRI after {totals[0]} epochs and the control after {totals[1]}, not the same course"
    return True, f"RRI and its control, each after {sum(epochs[0].values())} epochs"


def _epochs(content: Mapping[str, Any]) -> dict[tuple[str, int], int]:
    """Epochs of each stage that a checkpoint has behind it, the unfinished one too."""
    course = {(row["stage"], row["round"]): row["epochs"] for row in content.get("rows", ())}
    position = content["position"]
    if position.get("epoch"):
        course[position["stage"], position["round"]] = position["epoch"]
    return course


def _names(paths: tuple[str, ...]) -> list[str] | None:
    """The file names, or None where one comes twice."""
    names = [path.replace("\\", "/").rpartition("/")[2] for path in paths]
    return names if len(set(names)) == len(names) else None


def side_names(paths: Sequence[Path]) -> list[str]:
    """What to call each file: its name, with as many folders before it as it takes to tell them apart."""
    resolved = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, resolved)) + 1):
        names = ["/".join(parts[-length:]) for parts in resolved]
        if len(set(names)) == len(names):
            return names
    raise InputError(f"{paths[0]} is compared with itself; give another checkpoint to --against")
