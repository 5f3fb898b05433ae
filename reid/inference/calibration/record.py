"""The calibration record, its validation, and its conversion to plain values for a checkpoint."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError

FORMAT = 2  # in format 1 a curve was fitted at its prior
METHODS = ("logistic", "isotonic")


@dataclass(frozen=True)
class Threshold:
    """The distance threshold for one false-match rate; intervals are 95 %, by bootstrap over identities.

    Attributes:
        rate: Share of negatives (pairs of different identities) to accept at most, in (0, 1).
        distance: Pairs up to this distance are accepted.
        low: Lower bound of the distance.
        high: Upper bound of the distance.
        true_match_rate: Share of matches accepted at this distance, NaN if there are none.
        true_match_low: Lower bound of that share.
        true_match_high: Upper bound of that share.
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
            raise InputError(f"the threshold {self.distance} for the false-match rate {self.rate} is not valid")


@dataclass(frozen=True)
class CameraPair:
    """Thresholds between two cameras, regardless of which one took the query.

    Attributes:
        first: Camera id, at most `second`.
        second: Camera id, at least `first`.
        matches: Number of pairs of one identity.
        others: Number of pairs of different identities.
        thresholds: Thresholds by descending rate.
    """

    first: int
    second: int
    matches: int
    others: int
    thresholds: tuple[Threshold, ...]


@dataclass(frozen=True)
class Curve:
    """The probability that a pair is a match, by distance.

    Attributes:
        method: "logistic": 1 / (1 + exp(slope * distance + intercept)). "isotonic": linear interpolation between points
            (distance, probability) of non-increasing probability.
        parameters: (slope, intercept) with slope > 0; or the distances, ascending, followed by as many probabilities.
        prior: Share of matches among the pairs, in (0, 1).
        brier: Brier scores of (logistic, isotonic) on held-out identities, at that prior.
        no_skill: Brier score of always predicting the prior.
        reliability: Rows (mean probability, observed share, share of pairs) for bins of the probability, on held-out
            identities.
        share: Share of matches among the pairs that `parameters` were fitted on; None for `prior`.
    """

    method: str
    parameters: tuple[float, ...]
    prior: float
    brier: tuple[float, float] = (math.nan, math.nan)
    no_skill: float = math.nan
    reliability: tuple[tuple[float, float, float], ...] = ()
    share: float | None = None

    def __post_init__(self) -> None:
        values = np.array(self.parameters, dtype=np.float64)
        shares = (self.prior, self.prior if self.share is None else self.share)
        if self.method not in METHODS or not all(0 < p < 1 for p in shares) or not np.isfinite(values).all():
            raise InputError(f"the method {self.method!r} or the prior {self.prior} is not valid")
        half = len(values) // 2
        valid = len(values) >= 2 and len(values) % 2 == 0
        if self.method == "logistic":
            valid = len(values) == 2 and values[0] > 0
        elif valid:
            x, y = values[:half], values[half:]
            valid = bool((np.diff(x) >= 0).all() and (np.diff(y) <= 0).all() and y.min() > 0 and y.max() < 1)
        if not valid:
            raise InputError("a match probability must fall with the distance and stay between 0 and 1")

    def probability(self, distances: Any, prior: float | None = None) -> np.ndarray:
        """Compute match probabilities, see `Calibration.probability`.

        Args:
            distances: Distances of any shape, in [0, 2].
            prior: Share of matches among the pairs, None for `self.prior`.

        Returns:
            float64 probabilities of the same shape.

        Raises:
            InputError: If the prior is outside (0, 1).
        """
        at = np.asarray(distances, dtype=np.float64)
        values = np.array(self.parameters, dtype=np.float64)
        if self.method == "logistic":
            log_odds = -(values[0] * at + values[1])
        else:
            half = len(values) // 2
            p = np.interp(at, values[:half], values[half:])
            log_odds = np.log(p) - np.log1p(-p)
        wanted, fitted = self.prior if prior is None else prior, self.prior if self.share is None else self.share
        if not 0 < wanted < 1:
            raise InputError(f"a prior is a share of pairs between 0 and 1, not {wanted}")
        if wanted != fitted:
            log_odds = log_odds + math.log(wanted / (1 - wanted)) - math.log(fitted / (1 - fitted))
        # The exponent is never positive, so exp cannot overflow.
        exp = np.exp(-np.abs(log_odds))
        return np.where(log_odds >= 0, 1 / (1 + exp), exp / (1 + exp))


@dataclass(frozen=True)
class Calibration:
    """Meaning of the distances of one model: Euclidean, between L2-normalized rows, in [0, 2].

    Attributes:
        model_id: Identifier of the model, "" if unknown.
        dataset: Name of the data it was computed on.
        matches: Number of pairs of one identity.
        others: Number of pairs of different identities.
        identities: Number of identities.
        thresholds: Thresholds by descending rate.
        refused: Requested rates that the data cannot support.
        camera_pairs: Thresholds of camera pairs with enough data.
        curve: Match probability by distance.
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
        """Compute the probability that pairs are matches.

        Probabilities hold if the share `curve.prior` of the pairs are matches; `prior` converts them to another share
        by Bayes' rule: odds times the ratio of the prior odds.

        Args:
            distances: Distances of any shape, in [0, 2].
            prior: Share of matches among the pairs, None for `curve.prior`.

        Returns:
            float64 probabilities of the same shape.

        Raises:
            InputError: If the prior is outside (0, 1).
        """
        return self.curve.probability(distances, prior)

    def to_plain(self) -> dict[str, Any]:
        """Convert to plain values for a checkpoint or JSON.

        Returns:
            Numbers, strings, lists and dicts.
        """
        return {"format": FORMAT, **_plain(dataclasses.asdict(self))}

    @classmethod
    def from_plain(cls, plain: Any, source: str = "calibration") -> Calibration:
        """Restore a calibration from plain values.

        Args:
            plain: Value returned by `to_plain`.
            source: What error messages call it.

        Returns:
            Calibration equal to the one that was stored.

        Raises:
            InputError: If the values are not a valid calibration.
        """
        try:
            if plain["format"] not in (1, FORMAT):
                raise InputError(f"unknown format {plain['format']}, expected {FORMAT}")
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
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(f"{source}: not a calibration of this project ({reason})") from None


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
        None if entry.get("share") is None else float(entry["share"]),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _plain(value: Any) -> Any:
    """Convert tuples to lists and NaN, which JSON lacks, to None."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
