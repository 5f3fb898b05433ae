"""Calibration from labeled features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reid.errors import InputError
from reid.inference.calibration.pair_sampling import collect_pairs
from reid.inference.calibration.probability import fit_curve
from reid.inference.calibration.record import Calibration
from reid.inference.calibration.thresholds import MIN_FALSE_MATCHES, camera_pair_thresholds, thresholds
from reid.records import JUNK, Features

RATES = (1e-2, 1e-3, 1e-4)
REPLICATES = 500


def calibrate(
    query: Features,
    gallery: Features,
    *,
    model_id: str = "",
    dataset: str = "",
    rates: Sequence[float] = RATES,
    prior: float | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Calibration:
    """Compute thresholds for false-match rates with confidence intervals, and the match probability by distance.

    Rates that the data cannot support are listed in `Calibration.refused`.

    Args:
        query: Labeled features of one model; they are L2-normalized here.
        gallery: Labeled features of the same model.
        model_id: Identifier of the model to store.
        dataset: Name of the data to store.
        rates: False-match rates in (0, 1).
        prior: Share of matches among the pairs to which the probability will be applied, in (0, 1); None for that of
            these pairs.
        replicates: Number of bootstrap samples for the intervals.
        seed: Seed of the pair sampling, the bootstrap and the cross-validation.

    Returns:
        Thresholds, overall and by pair of cameras, and the fitted probability curve.

    Raises:
        InputError: If an option is out of range, the labels have only one identity or one camera, there are no matches,
            or the data do not support any of the rates.
    """
    _check_options(rates, prior, replicates)
    _check_labels(query, gallery)
    rates = sorted(set(rates), reverse=True)
    pairs = collect_pairs(query, gallery, largest_rate=rates[0], seed=seed)
    negatives = pairs.num_negatives()
    supported = [rate for rate in rates if negatives * rate >= MIN_FALSE_MATCHES]
    if not supported:
        raise InputError(
            f"{negatives:,.0f} pairs of different identities cannot support a false-match rate of {rates[0]:g} or "
            f"below: that would be {negatives * rates[0]:.1f} false matches, and at least {MIN_FALSE_MATCHES} are "
            "needed; use more images, or a larger rate with --rates"
        )
    return Calibration(
        model_id=model_id,
        dataset=dataset,
        matches=len(pairs.match_distances),
        others=round(negatives),
        identities=pairs.identities,
        thresholds=thresholds(pairs, supported, replicates=replicates, seed=seed),
        refused=tuple(rate for rate in rates if rate not in supported),
        camera_pairs=camera_pair_thresholds(pairs, supported, replicates=replicates, seed=seed),
        curve=fit_curve(pairs, prior=prior, seed=seed),
    )


def _check_options(rates: Sequence[float], prior: float | None, replicates: int) -> None:
    invalid = [rate for rate in rates if not 0 < rate < 1]
    if invalid or not rates:
        raise InputError(f"false-match rates must be between 0 and 1, such as 0.001, not {invalid or 'an empty list'}")
    if prior is not None and not 0 < prior < 1:
        raise InputError(f"a prior is a share of pairs between 0 and 1, not {prior}")
    if replicates < 1:
        raise InputError(
            f"{replicates} bootstrap replicates give no interval: use at least 1 ({REPLICATES} recommended)"
        )


def _check_labels(query: Features, gallery: Features) -> None:
    labeled = gallery.identities != JUNK
    identities = np.unique(np.concatenate([query.identities, gallery.identities[labeled]]))
    if len(identities) == 1:
        raise InputError(
            f"all {len(query.identities) + int(labeled.sum()):,} images are of identity {identities[0]}: without pairs "
            "of different identities there are no false matches to count"
        )
    cameras = np.unique(np.concatenate([query.cameras, gallery.cameras[labeled]]))
    if len(cameras) == 1:
        raise InputError(
            f"all images are of camera {cameras[0]}, but matches only count across cameras (consecutive "
            "crops from one camera are nearly identical, which would make every threshold too strict); label the "
            "cameras, or use query and gallery images from different ones"
        )
