"""Searching and counting in Milvus, and the share of the exact nearest images that it finds."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np

from reid.ranking.exact.distances import squared_distances
from reid.search.milvus import entities
from reid.search.milvus.connection import Connection
from reid.search.milvus.entities import FOUND

RECALL_AT = 10
# Milvus orders by float32 distances of its index: candidates beyond the k nearest that exact distances order anew.
SPARE = 16
_SCANNED = 16_384  # images of a filter of which all are compared if Milvus misses some
_QUERIES = 64
_ROUNDING = 1e-6


def count_entities(connection: Connection, expression: str) -> int:
    """Count entities.

    Args:
        connection: Connection to the collection.
        expression: Filter, "" for all.

    Returns:
        Number of entities that pass it.
    """
    [row] = connection("query", filter=expression, output_fields=["count(*)"])
    return int(row["count(*)"])


def count_images(connection: Connection) -> int:
    """Count the images that can be found.

    Args:
        connection: Connection to the collection.

    Returns:
        Number of images.
    """
    # Milvus Lite reads every entity that passes a filter, and few do not.
    return count_entities(connection, "") - count_entities(connection, "removed == true")


def find_candidates(
    connection: Connection, query: np.ndarray, k: int, expression: str, fields: list[str]
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Let Milvus find the nearest images, and compute their exact distances.

    The graph that Milvus searches does not reach every image, so that it may return fewer than were asked for although
    more pass the filter. If these are few, all of them are compared.

    Args:
        connection: Connection to the collection.
        query: (D,) float32 unit row.
        k: Number of images that are needed; a few more are returned.
        expression: Filter.
        fields: Fields to return besides `feature` and `checksum`.

    Returns:
        (n,) float64 distances, and the entities, in any order.
    """
    fields = [*fields, "feature", "checksum"]
    [hits] = connection(
        "search",
        data=[query],
        anns_field="feature",
        limit=k + SPARE,
        filter=expression,
        output_fields=fields,
    )
    found = [hit["entity"] for hit in hits]
    if len(found) < k + SPARE and len(found) < count_entities(connection, expression) <= _SCANNED:
        batches = connection.scan(expression, fields, entities.batch_size(len(query)))
        found = [entity for batch in batches for entity in batch]
    if not found:
        return np.empty(0), []
    rows = np.array([entity["feature"] for entity in found], dtype=np.float32)
    return np.sqrt(squared_distances(np.broadcast_to(query, rows.shape), rows)), found


def measure_recall(connection: Connection, dim: int) -> tuple[float, int]:
    """Compare searches for some images of an index, as `svdnet search` runs them, with all its features.

    All features are read once.

    Args:
        connection: Connection to a collection of at least two images.
        dim: Feature dimension.

    Returns:
        Fraction of the exact `RECALL_AT` nearest other images that were found, ties included; number of queries.
    """
    queries, keys = _sample(connection)
    nearest = np.full((len(queries), RECALL_AT), np.inf)
    for batch in connection.scan(FOUND, ["key", "feature"], entities.batch_size(dim)):
        distances = _distances(queries, batch)
        distances[keys[:, None] == np.array([entity["key"] for entity in batch])] = np.inf
        nearest = np.sort(np.concatenate([nearest, distances], axis=1), axis=1)[:, :RECALL_AT]
    k = int(np.isfinite(nearest[0]).sum())
    farthest = nearest[:, k - 1]
    hits = 0
    for query, key, limit in zip(queries, keys.tolist(), farthest.tolist(), strict=True):
        distances, found = find_candidates(connection, query.astype(np.float32), k + 1, FOUND, ["key"])
        others = np.sort([d for d, entity in zip(distances, found, strict=True) if entity["key"] != key])
        hits += min(k, int((others**2 <= limit + _ROUNDING).sum()))
    return hits / (k * len(queries)), len(queries)


def _sample(connection: Connection) -> tuple[np.ndarray, np.ndarray]:
    """Return features (Q, D) float64 and keys of images that follow a random key, which is a digest."""
    start = secrets.token_hex(16)
    fields, found = ["key", "feature"], list[dict[str, Any]]()
    for order in (">=", "<"):
        if len(found) < _QUERIES:
            expression = f'{FOUND} and key {order} "{start}"'
            found += connection("query", filter=expression, output_fields=fields, limit=_QUERIES - len(found))
    rows = np.array([entity["feature"] for entity in found], dtype=np.float64)
    return rows, np.array([entity["key"] for entity in found])


def _distances(queries: np.ndarray, batch: list[dict[str, Any]]) -> np.ndarray:
    """Squared distances (Q, n) float64."""
    rows = np.array([entity["feature"] for entity in batch], dtype=np.float64)
    lengths = np.einsum("ij,ij->i", rows, rows), np.einsum("ij,ij->i", queries, queries)
    distances: np.ndarray = lengths[1][:, None] + lengths[0] - 2 * (queries @ rows.T)
    return distances
