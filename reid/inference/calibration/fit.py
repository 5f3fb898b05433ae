"""Labeled features in, a `Calibration` out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reid.errors import InputError
from reid.inference.calibration.pair_sampling import collect_pairs
from reid.inference.calibration.probability import fit_curve
from reid.inference.calibration.record import Calibration
from reid.inference.calibration.thresholds import LEAST_ERRORS, camera_pairs, supported, thresholds
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
    """Thresholds for the false-match rates that the data support, with intervals, and the probability by distance.

    query, gallery: labeled features of one model; rows are divided by their length here. prior: share of pairs of one
    person at which the probability is to hold, None for that of these pairs. replicates: of the bootstrap.

    Raises InputError for labels with one identity or one camera, no pair of one person or none of different people, too
    few pairs for any of `rates`, a rate or prior outside 0 .. 1, and features as `reid.ranking.evaluate` does.
    """
    wrong = [rate for rate in rates if not 0 < rate < 1]
    if wrong or not rates:
        raise InputError(f"false-match rates lie between 0 and 1, such as 0.001, not {wrong or 'none at all'}")
    if prior is not None and not 0 < prior < 1:
        raise InputError(f"a prior is a share of pairs between 0 and 1, not {prior}")
    if replicates < 1:
        raise InputError(f"a bootstrap of {replicates} replicates gives no interval: at least 1, better {REPLICATES}")
    _check_labels(query, gallery)
    wanted = sorted(set(rates), reverse=True)
    pairs = collect_pairs(query, gallery, largest_rate=wanted[0], seed=seed)
    others = pairs.num_negatives()
    possible = [rate for rate in wanted if supported(others, rate)]
    if not possible:
        raise InputError(
            f"{others:,.0f} pairs of different people cannot support a false-match rate of {wanted[0]:g} or below: "
            f"that would be {others * wanted[0]:.1f} false matches, and at least {LEAST_ERRORS} are needed; give more "
            "images, or a larger rate by --rates"
        )
    return Calibration(
        model_id=model_id,
        dataset=dataset,
        matches=len(pairs.match_distances),
        others=round(others),
        identities=pairs.identities,
        thresholds=thresholds(pairs, possible, replicates=replicates, seed=seed),
        refused=tuple(rate for rate in wanted if rate not in possible),
        camera_pairs=camera_pairs(pairs, possible, replicates=replicates, seed=seed),
        curve=fit_curve(pairs, prior=prior, seed=seed),
    )


def _check_labels(query: Features, gallery: Features) -> None:
    labeled = gallery.identities != JUNK
    people = np.unique(np.concatenate([query.identities, gallery.identities[labeled]]))
    if len(people) == 1:
        raise InputError(
            f"all {len(query.identities) + int(labeled.sum()):,} images are of identity {people[0]}: without pairs of "
            "different people there is no false match to count"
        )
    cameras = np.unique(np.concatenate([query.cameras, gallery.cameras[labeled]]))
    if len(cameras) == 1:
        raise InputError(
            f"all images are of camera {cameras[0]}, and a pair of one person counts between two cameras only (two "
            "crops of one walk past one camera are nearly the same picture, which would make every threshold too "
            "strict); label the cameras, or let query and gallery be of different ones"
        )
