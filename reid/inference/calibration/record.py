"""What a calibration holds, as a record that checks itself and as plain values for a checkpoint."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError

FORMAT = 1
METHODS = ("logistic", "isotonic")


@dataclass(frozen=True)
class Threshold:
    """The distance for one wanted false-match rate.

    rate: wanted share of pairs of different people accepted. distance: pairs at most so far apart are accepted; low,
    high: its interval. true_match_rate: share of the pairs of one person accepted then, NaN without such pairs;
    true_match_low, true_match_high: its interval. Intervals cover 95 %, by bootstrap over identities.
    """

    rate: float
    distance: float
    low: float
    high: float
    true_match_rate: float
    true_match_low: float
    true_match_high: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or not 0 <= self.low <= self.high or not math.isfinite(self.high + self.distance):
            raise InputError(f"a threshold for the false-match rate {self.rate} of {self.distance} is none")


@dataclass(frozen=True)
class CameraPair:
    """Thresholds between two cameras, either way round; first <= second. matches, others: pairs they stand on."""

    first: int
    second: int
    matches: int
    others: int
    thresholds: tuple[Threshold, ...]


@dataclass(frozen=True)
class Curve:
    """The probability that a pair is one person, by distance, for pairs of which the share `prior` is.

    method "logistic": 1 / (1 + exp(slope * distance + intercept)), parameters (slope, intercept), slope above 0.
    "isotonic": linear between the points (distances, probabilities), which never rise; parameters are the distances,
    ascending, and then as many probabilities. brier: (logistic, isotonic) mean squared errors of the probability on
    identities left out of the fit, at that prior; no_skill: of always saying the prior. reliability: rows (mean
    probability, observed share, share of pairs) in bins of the probability, on identities left out.
    """

    method: str
    parameters: tuple[float, ...]
    prior: float
    brier: tuple[float, float] = (math.nan, math.nan)
    no_skill: float = math.nan
    reliability: tuple[tuple[float, float, float], ...] = ()

    def __post_init__(self) -> None:
        values = np.array(self.parameters, dtype=np.float64)
        if self.method not in METHODS or not 0 < self.prior < 1 or not np.isfinite(values).all():
            raise InputError(f"a probability by {self.method!r} at the prior {self.prior} is none")
        half = len(values) // 2
        falling = len(values) >= 2 and len(values) % 2 == 0
        if self.method == "logistic":
            falling = len(values) == 2 and values[0] > 0
        elif falling:
            x, y = values[:half], values[half:]
            falling = bool((np.diff(x) >= 0).all() and (np.diff(y) <= 0).all() and y.min() > 0 and y.max() < 1)
        if not falling:
            raise InputError("a probability of being one person must fall with the distance and stay between 0 and 1")

    def probability(self, distances: Any, prior: float | None = None) -> np.ndarray:
        """See `Calibration.probability`."""
        at = np.asarray(distances, dtype=np.float64)
        values = np.array(self.parameters, dtype=np.float64)
        if self.method == "logistic":
            odds = -(values[0] * at + values[1])
        else:
            half = len(values) // 2
            found = np.interp(at, values[:half], values[half:])
            odds = np.log(found) - np.log1p(-found)
        if prior is not None:
            if not 0 < prior < 1:
                raise InputError(f"a prior is a share of pairs between 0 and 1, not {prior}")
            odds = odds + math.log(prior / (1 - prior)) - math.log(self.prior / (1 - self.prior))
        # exp of the negative size only, which cannot overflow.
        small = np.exp(-np.abs(odds))
        return np.where(odds >= 0, 1 / (1 + small), small / (1 + small))


@dataclass(frozen=True)
class Calibration:
    """What distances of one model mean.

    Distances are Euclidean between rows of length 1, 0 .. 2. model_id: of the model, "" where unknown. dataset: what it
    was made on. matches, others, identities: pairs of one person, pairs of different people, and people. thresholds:
    by descending rate; refused: wanted rates that `others` cannot support. camera_pairs: where the data allow.
    """

    model_id: str
    dataset: str
    matches: int
    others: int
    identities: int
    thresholds: tuple[Threshold, ...]
    refused: tuple[float, ...]
    camera_pairs: tuple[CameraPair, ...]
    curve: Curve

    def probability(self, distances: Any, prior: float | None = None) -> np.ndarray:
        """Distances of any shape, 0 .. 2 -> float64 probabilities of being one person.

        They hold where the share `curve.prior` of the pairs asked about is of one person; `prior` moves them to pairs
        of another share by Bayes' rule, odds times the ratio of the prior odds. Raises InputError for a prior outside
        0 .. 1.
        """
        return self.curve.probability(distances, prior)

    def to_plain(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts, for a checkpoint or JSON."""
        return {"format": FORMAT, **_plain(dataclasses.asdict(self))}

    @classmethod
    def from_plain(cls, plain: Any, source: str = "calibration") -> Calibration:
        """What `to_plain` gave. source: what the error names. Raises InputError for anything else."""
        try:
            if plain["format"] != FORMAT:
                raise InputError(f"the format {plain['format']} is not known, only {FORMAT}")
            rest = {key: plain[key] for key in plain if key != "format"}
            return cls(
                **{
                    **rest,
                    "model_id": str(rest["model_id"]),
                    "dataset": str(rest["dataset"]),
                    **{name: int(rest[name]) for name in ("matches", "others", "identities")},
                    "thresholds": _thresholds(rest["thresholds"]),
                    "refused": tuple(float(rate) for rate in rest["refused"]),
                    "camera_pairs": tuple(
                        CameraPair(
                            first=int(pair["first"]),
                            second=int(pair["second"]),
                            matches=int(pair["matches"]),
                            others=int(pair["others"]),
                            thresholds=_thresholds(pair["thresholds"]),
                        )
                        for pair in rest["camera_pairs"]
                    ),
                    "curve": _curve(rest["curve"]),
                }
            )
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            told = " ".join(str(error).split())
            raise InputError(f"{source}: no calibration of this project ({type(error).__name__}: {told})") from None


def _thresholds(entries: Sequence[Mapping[str, Any]]) -> tuple[Threshold, ...]:
    return tuple(Threshold(**{name: _number(value) for name, value in entry.items()}) for entry in entries)


def _curve(entry: Mapping[str, Any]) -> Curve:
    first, second = (_number(value) for value in entry["brier"])
    return Curve(
        str(entry["method"]),
        tuple(float(value) for value in entry["parameters"]),
        float(entry["prior"]),
        (first, second),
        _number(entry["no_skill"]),
        tuple((float(a), float(b), float(c)) for a, b, c in entry["reliability"]),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _plain(value: Any) -> Any:
    """Tuples as lists and NaN, which JSON lacks, as None."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
