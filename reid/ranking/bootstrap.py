"""Confidence intervals of the difference between two rankings of the same queries, or between paired trainings."""

from __future__ import annotations

import numpy as np

from reid.errors import InputError
from reid.records import PER_QUERY, Scores

RESAMPLES = 10_000
LEVEL = 0.95
_DRAWS_PER_BLOCK = 1 << 18


def paired_bootstrap(
    values: np.ndarray,
    reference: np.ndarray,
    identities: np.ndarray | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Compute the mean difference of paired measurements, with the percentile interval of the paired bootstrap.

    Queries are drawn with replacement, and each query brings its values under both rankings, so that what makes a
    query easy or hard for both cancels (Efron and Tibshirani 1993, chapter 13). Queries of one person share their
    matches, so persons are drawn, with all their queries, where they are known. The interval covers the choice of the
    queries, not that of the training seed.

    Args:
        values: (Q,) or (Q, K) K measures of each query.
        reference: The same measures of the same queries under the other ranking.
        identities: (Q,) the person of each query; None draws every query by itself, by which an interval of mAP on
            Market-1501 came out a fifth too short.
        level: Probability that the interval is meant to cover, between 0 and 1.
        resamples: How often persons are drawn.
        seed: Seed of the draws.

    Returns:
        (3,) or (K, 3) float64: mean of `values` minus mean of `reference`, lower and upper end of its interval.

    Raises:
        InputError: If the shapes differ, there is no query, a value is not finite, or `level` or `resamples` is out of
            range.
    """
    values, reference = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if values.ndim not in (1, 2):
        raise InputError(f"a paired comparison requires (queries,) or (queries, measures) values, not {values.shape}")
    return _bootstrap(values[None], reference[None], identities, level, resamples, seed)


def paired_bootstrap_of_runs(
    values: np.ndarray,
    reference: np.ndarray,
    identities: np.ndarray | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Compute the mean difference of paired trainings, with an interval that covers seeds and queries.

    Seeds and persons are drawn with replacement, independently of each other, and every drawn seed is measured on every
    query of every drawn person (the crossed bootstrap; Owen 2007, "The pigeonhole bootstrap"). With few seeds the
    interval is too short: if only the seed mattered, that of three seeds would be the range of the three differences,
    which covers the true one in 75 % of all cases. Look at the difference of every seed, too.

    Args:
        values: (S, Q) or (S, Q, K) K measures of each query by each of S trainings.
        reference: The same of the trainings that they are compared with, which share the seeds and the queries.
        identities: (Q,) the person of each query; None draws every query by itself.
        level: Probability that the interval is meant to cover, between 0 and 1.
        resamples: How often seeds and persons are drawn.
        seed: Seed of the draws.

    Returns:
        (3,) or (K, 3) float64: mean of `values` minus mean of `reference`, lower and upper end of its interval.

    Raises:
        InputError: If the shapes differ, there is no training or no query, a value is not finite, or `level` or
            `resamples` is out of range.
    """
    values, reference = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if values.ndim not in (2, 3) or not len(values):
        raise InputError(f"a comparison of trainings requires (trainings, queries) values, not {values.shape}")
    return _bootstrap(values, reference, identities, level, resamples, seed)


def _bootstrap(
    values: np.ndarray,
    reference: np.ndarray,
    identities: np.ndarray | None,
    level: float,
    resamples: int,
    seed: int,
) -> np.ndarray:
    """Crossed bootstrap of (S, Q) or (S, Q, K) values over trainings and groups of queries."""
    _check(values, reference, level, resamples)
    differences, generator = values - reference, np.random.default_rng(seed)
    trainings, queries = differences.shape[:2]
    group = np.arange(queries) if identities is None else np.unique(identities, return_inverse=True)[1].reshape(-1)
    if len(group) != queries:
        raise InputError(f"{len(group)} identities for {queries} queries")
    sizes = np.bincount(group).astype(np.float64)
    sums = np.zeros((len(sizes), trainings, *differences.shape[2:]))
    np.add.at(sums, group, differences.swapaxes(0, 1))
    # In blocks, since all resamples together would need gigabytes. Every sum is that of NumPy, which does not depend on
    # the number of threads.
    means, block = [], max(1, _DRAWS_PER_BLOCK // len(sizes))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        seeds, drawn = (_times_drawn(generator, size, of) for of in (trainings, len(sizes)))
        total = np.einsum("rs,rs...->r...", seeds, np.einsum("rg,gs...->rs...", drawn, sums))
        number = trainings * np.einsum("rg,g->r", drawn, sizes)
        means.append(total / number.reshape(-1, *(1,) * (total.ndim - 1)))
    ends = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.stack([differences.mean(axis=(0, 1)), *ends], axis=-1)


def _times_drawn(generator: np.random.Generator, size: int, of: int) -> np.ndarray:
    """(size, of) float64 how often each of `of` things is drawn in `of` draws with replacement."""
    drawn = generator.integers(of, size=(size, of)) + of * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * of).reshape(size, of).astype(np.float64)


def _check(values: np.ndarray, reference: np.ndarray, level: float, resamples: int) -> None:
    """Check the arguments of both."""
    if values.shape != reference.shape or not values.size:
        raise InputError(
            f"a paired comparison requires the same measures of the same queries, not arrays of {values.shape} and "
            f"{reference.shape}"
        )
    if not (np.isfinite(values).all() and np.isfinite(reference).all()):
        raise InputError("a paired comparison requires finite values; leave out the queries without a true match")
    if not 0 < level < 1 or resamples < 1:
        raise InputError(f"level {level} must be between 0 and 1, and resamples {resamples} at least 1")


def score_difference(scores: Scores, reference: Scores) -> dict[str, list[float]] | None:
    """Compare the scores of two rankings of the same queries and gallery.

    Args:
        scores: Scores with the values of every query.
        reference: Scores that are subtracted.

    Returns:
        "rank1", "mAP" and "mINP", each [difference, low, high], a fraction with its 95 % interval; None if one of the
        two lacks the values of its queries.

    Raises:
        InputError: If they are scores of different queries.
    """
    if scores.per_query is None or reference.per_query is None:
        return None
    persons, others = scores.identities, reference.identities
    if persons is not None and others is not None and not np.array_equal(persons, others):
        raise InputError("scores of different queries cannot be compared")
    ends = paired_bootstrap(scores.per_query, reference.per_query, None if others is None else persons)
    return dict(zip(PER_QUERY, ends.tolist(), strict=True))
