from __future__ import annotations

import builtins
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid.errors import InputError
from reid.io.shards import open_matrix, open_shards
from reid.ranking.faiss_index import IndexOptions, SearchIndex, build_index, search_index
from reid.ranking.search import top_k

pytest.importorskip("faiss")


def drawn(kind: str, seed: int = 0, *, queries: int = 40, gallery: int = 700) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if kind == "tied":
        sides = [rng.integers(0, 3, (n, 4)) for n in (queries, gallery)]
    elif kind == "clustered":
        centres = 5 * rng.normal(size=(20, 16))
        sides = [centres[rng.integers(0, 20, n)] + rng.normal(size=(n, 16)) for n in (queries, gallery)]
    else:
        sides = [rng.normal(size=(n, 24)) for n in (queries, gallery)]
    return sides[0].astype(np.float32), sides[1].astype(np.float32)


def nearest(query: np.ndarray, gallery: np.ndarray, k: int, metric: str = "euclidean") -> np.ndarray:
    """By sorting float64 distances; no code shared."""
    query, gallery = query.astype(np.float64), gallery.astype(np.float64)
    if metric == "cosine":
        query, gallery = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (query, gallery))
    distances = ((query[:, None] - gallery[None]) ** 2).sum(axis=2)
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("kind", "settings"), [("flat", {}), ("ivf", {"cells": 8, "probes": 8}), ("hnsw", {})])
def test_finds_what_sorting_finds(kind: str, settings: dict[str, int], metric: str) -> None:
    query, gallery = drawn("random")
    found = search_index(build_index(gallery, IndexOptions(kind, **settings), metric=metric), query, 9)
    exact = top_k(query, gallery, 9, metric=metric)
    np.testing.assert_array_equal(found.indices, nearest(query, gallery, 9, metric))
    np.testing.assert_array_equal(found.distances, exact.distances)


def test_orders_equal_distances_by_index() -> None:
    query, gallery = drawn("tied", gallery=120)
    # All are asked for, so nothing can be overlooked and the order alone is on trial.
    found = search_index(build_index(gallery, IndexOptions("ivf", cells=3, probes=3)), query, 120)
    np.testing.assert_array_equal(found.indices, nearest(query, gallery, 120))


def test_keeps_digits_far_from_the_origin() -> None:
    query, gallery = drawn("random")
    query, gallery = query + np.float32(1000), gallery + np.float32(1000)
    found = search_index(build_index(gallery, IndexOptions("flat")), query, 5)
    np.testing.assert_array_equal(found.indices, nearest(query, gallery, 5))


def test_order_is_exact_among_what_is_found() -> None:
    query, gallery = drawn("random", gallery=2000)
    found = search_index(build_index(gallery, IndexOptions("ivf", cells=40, probes=2)), query, 10)
    exact = ((query[:, None].astype(np.float64) - gallery[found.indices]) ** 2).sum(axis=2)
    np.testing.assert_allclose(found.distances, exact, rtol=1e-12)
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert (found.indices != nearest(query, gallery, 10)).any()


@pytest.mark.parametrize("with_queries", [True, False])
def test_recall_is_the_share_found(with_queries: bool) -> None:
    query, gallery = drawn("random", gallery=600)
    asked = query if with_queries else gallery
    index = build_index(
        gallery, IndexOptions(cells=15, probes=1, k=10, sample=1000), queries=query if with_queries else None
    )
    itself = 0 if with_queries else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = search_index(index, asked, 10 + itself).indices
    shares = []
    for row, (mine, exact) in enumerate(zip(found, nearest(asked, gallery, 10 + itself), strict=True)):
        left_out = set() if with_queries else {row}
        shares.append(len((set(mine.tolist()) & set(exact.tolist())) - left_out) / 10)
    assert index.recall == pytest.approx(np.mean(shares), abs=1e-12)
    assert 0.05 < index.recall < 0.95
    assert f"recall@10 {index.recall:.4f}" in index.summary and "1 of 15 cells" in index.summary


def test_recall_does_not_mind_which_of_equal_rows_is_found() -> None:
    gallery = np.repeat(drawn("random", gallery=5)[1], 60, axis=0)
    assert build_index(gallery, IndexOptions("flat", k=10)).recall == 1.0


def test_recall_rises_with_the_probes(caplog: pytest.LogCaptureFixture) -> None:
    query, gallery = drawn("random", gallery=3000)
    few, all_cells = (build_index(gallery, IndexOptions(cells=30, probes=p), queries=query) for p in (1, 30))
    assert few.recall < 0.8 and all_cells.recall == 1.0
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [few.summary]


@pytest.mark.parametrize(("kind", "first", "limit"), [("ivf", 16, "_MOST_CELLS"), ("hnsw", 32, "_MOST_HNSW_PROBES")])
def test_probes_are_doubled_until_the_recall_is_sufficient(
    kind: str, first: int, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, (_, gallery) = "reid.ranking.faiss_index.", drawn("random", gallery=4000)
    few = build_index(gallery, IndexOptions(kind, cells=100, probes=first))
    monkeypatch.setattr(module + "_HNSW_PROBES", first)
    monkeypatch.setattr(module + "_SUFFICIENT_RECALL", (1 + few.recall) / 2)
    for most, enough in ((0.9, True), (0.17, False)):
        monkeypatch.setattr(module + limit, most if kind == "ivf" else round(first * (5 * most)))
        chosen = build_index(gallery, IndexOptions(kind, cells=100))
        probes = chosen.index.nprobe if kind == "ivf" else chosen.index.hnsw.efSearch
        assert probes >= first and f"{probes} " in chosen.summary
        assert (chosen.recall >= (1 + few.recall) / 2) == enough, chosen.summary


def test_the_seed_decides() -> None:
    query, gallery = drawn("random", gallery=1500)
    first, again = (
        search_index(build_index(gallery, IndexOptions(cells=20, probes=1, seed=3)), query, 5) for _ in range(2)
    )
    np.testing.assert_array_equal(first.indices, again.indices)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_where_too_few_are_found_search_is_exact(kind: str) -> None:
    if kind == "ivf":
        query, gallery = drawn("clustered")
        index = build_index(gallery, IndexOptions(cells=20, probes=1, k=5))
    else:
        # Many equal rows, among which a walk along the links of a graph gets lost.
        query, gallery = drawn("random", gallery=200)
        gallery = np.concatenate([np.repeat(gallery[:1], 500, axis=0), gallery])
        index = build_index(gallery, IndexOptions("hnsw", probes=1, k=5))
    k = len(gallery) - 10
    with pytest.warns(UserWarning, match=rf"fewer than {k} rows for \d+ of 40 queries.*more probes"):
        found = search_index(index, query, k)
    np.testing.assert_array_equal(found.indices, nearest(query, gallery, k))


def test_gallery_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid.ranking.exact.gallery_rows._TILE_BYTES", 1 << 14)  # tiles of 256 rows
    query, gallery = drawn("random", gallery=1000)
    np.save(tmp_path / "gallery.npy", gallery)
    (tmp_path / "shards").mkdir()
    for number, part in enumerate(np.split(gallery, [300, 310])):
        np.save(tmp_path / "shards" / f"{number}.npy", part)
    for matrix in (open_matrix(tmp_path / "gallery.npy"), open_shards(tmp_path / "shards")):
        found = search_index(build_index(matrix, IndexOptions(cells=10, probes=10)), query, 6)
        np.testing.assert_array_equal(found.indices, nearest(query, gallery, 6))


def test_small_galleries() -> None:
    query, gallery = drawn("random", gallery=3)
    for kind in ("ivf", "hnsw", "flat"):
        for size in (1, 3):
            index = build_index(gallery[:size], IndexOptions(kind))
            assert index.recall == 1.0
            np.testing.assert_array_equal(
                search_index(index, query, size).indices, nearest(query, gallery[:size], size)
            )
    none = search_index(index, query[:0], 2)
    assert none.indices.shape == none.distances.shape == (0, 2)


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    query, gallery = drawn("random")
    index = build_index(torch.from_numpy(gallery), IndexOptions("flat"))
    np.testing.assert_array_equal(search_index(index, torch.from_numpy(query), 4).indices, nearest(query, gallery, 4))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "ivff"}, "unknown index 'ivff'; did you mean ivf"),
        ({"cells": 701}, "cells 701: must be at most the 700 rows"),
        ({"cells": -1}, "cells -1: must"),
        ({"probes": -2}, "probes -2: must"),
        ({"k": 0}, "k 0: must"),
        ({"sample": 0}, "sample 0: must"),
    ],
)
def test_refuses_wrong_options(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_index(drawn("random")[1], IndexOptions(**wrong))


def test_refuses_an_unknown_metric() -> None:
    with pytest.raises(InputError, match="unknown metric 'euclid'"):
        build_index(drawn("random")[1], metric="euclid")


def test_names_a_broken_row_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid.ranking.exact.gallery_rows._TILE_BYTES", 1 << 14)  # tiles of 256 rows
    gallery = drawn("random")[1]
    gallery[600, 3] = np.nan
    for kind in ("ivf", "hnsw", "flat"):
        with pytest.raises(InputError, match="1 gallery feature rows hold NaN or infinity, the first: 600"):
            build_index(gallery, IndexOptions(kind))


def test_refuses_wrong_features() -> None:
    query, gallery = drawn("random")
    with pytest.raises(InputError, match="at least one row"):
        build_index(gallery[:0])
    with pytest.raises(InputError, match="same width"):
        build_index(gallery, queries=query[:, :5])
    broken = gallery.copy()
    broken[[17, 400], 3] = np.nan, np.inf
    with pytest.raises(InputError, match=r"hold NaN or infinity, the first: 17, 400"):
        build_index(broken)
    index = build_index(gallery, IndexOptions("flat"))
    for k in (0, 701):
        with pytest.raises(InputError, match=r"\[1, 700\]"):
            search_index(index, query, k)
    with pytest.raises(InputError, match="same width"):
        search_index(index, query[:, :5], 3)
    with pytest.raises(InputError, match="query feature rows hold NaN"):
        search_index(index, np.full_like(query, np.nan), 3)


def test_tells_how_to_install_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without_faiss(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "faiss":
            raise ModuleNotFoundError("No module named 'faiss'")
        return load(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_faiss)
    with pytest.raises(InputError, match=r"pip install .*\[search\]"):
        build_index(drawn("random")[1])


def test_the_record_keeps_what_it_was_built_over() -> None:
    gallery = drawn("random")[1]
    index = build_index(gallery, IndexOptions(k=5), metric="cosine")
    assert isinstance(index, SearchIndex) and index.gallery is gallery and index.metric == "cosine" and index.k == 5
