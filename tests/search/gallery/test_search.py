"""Search results compared with plain loops, with filters, duplicates and current and outdated FAISS indexes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid.errors import InputError
from reid.search.gallery import (
    Gallery,
    Snapshot,
    build_faiss_index,
    has_current_faiss_index,
    list_crops,
    load_faiss_index,
    mean_query,
    read_snapshot,
    search_snapshot,
    select_search,
    update_index,
)

Vector = Callable[[bytes], np.ndarray]


@pytest.fixture
def index(crops: Path, tmp_path: Path, embed: Any) -> Path:
    for number in range(150):
        path = crops / "0009" / f"c{number % 3 + 1}_{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%d" % (number // 2))  # duplicates
    for day in ("2026-01-30", "2026-01-31_12-00"):
        (crops / "0010").mkdir(exist_ok=True)
        (crops / "0010" / f"c7_{day}.jpg").write_bytes(day.encode())
    with Gallery.create(tmp_path / "i", model_id="m", dim=16, shard_size=20) as gallery:
        update_index(gallery, list_crops(crops, "{identity}/c{camera}_{time}"), embed, progress=False)
        gallery.set_removed(["0009/c1_0.jpg", "0009/c3_2.jpg"], removed=True)
    return tmp_path / "i"


def brute_force(snapshot: Snapshot, query: np.ndarray, mask: np.ndarray) -> list[tuple[str, float]]:
    results = []
    for crop, row, selected in zip(snapshot.crops, snapshot.read_rows(snapshot.rows), mask, strict=True):
        if selected:
            results.append((float(np.sqrt(((query.astype(np.float64) - row) ** 2).sum())), crop.path))
    return [(path, distance) for distance, path in sorted(results)]


@pytest.mark.parametrize("cameras, period", [((), None), (("1", "3"), None), ((), (20.0, 60.0)), (("7",), None)])
def test_results_equal_a_plain_loop(
    index: Path, make_vector: Vector, cameras: tuple[str, ...], period: tuple[float, float] | None
) -> None:
    snapshot = read_snapshot(index)
    mask = snapshot.filter_mask(cameras, period)
    assert mask.any()
    queries = np.stack([make_vector(b"7"), make_vector(b"unknown")])
    for query, results in zip(queries, search_snapshot(snapshot, queries, 300, mask=mask), strict=True):
        expected = brute_force(snapshot, query, mask)
        assert [a.path for a in results] == [path for path, _ in expected]
        np.testing.assert_allclose([a.distance for a in results], [d for _, d in expected], atol=1e-7)
        assert [a.rank for a in results] == list(range(1, len(expected) + 1))
        assert all(not cameras or a.camera in cameras for a in results)
    first = search_snapshot(snapshot, queries, 3)[0]
    assert [a.path for a in first[:2]] == ["0009/c3_14.jpg", "0009/c1_15.jpg"][::-1] and first[0].distance == 0


def test_the_queries_own_content_is_left_out(index: Path, make_vector: Vector) -> None:
    snapshot = read_snapshot(index)
    digests = dict(zip((crop.path for crop in snapshot.crops), snapshot.digests, strict=True))
    queries = np.stack([make_vector(b"7"), make_vector(b"8")])
    everything = search_snapshot(snapshot, queries, 10)
    without = search_snapshot(snapshot, queries, 8, exclude=[{digests["0009/c3_14.jpg"]}, set()])
    assert [a.path for a in without[0]] == [a.path for a in everything[0][2:]]
    assert without[1] == everything[1][:8]


def test_faiss_finds_what_exact_search_finds(index: Path, make_vector: Vector) -> None:
    pytest.importorskip("faiss")
    with Gallery.open(index) as gallery:
        note = build_faiss_index(gallery, kind="flat")
    # 12, 75 with duplicates, and 2: the duplicates of the two removed images stay.
    assert note["recall"] == 1.0 and note["k"] == 10 and note["rows"] == 89
    snapshot = read_snapshot(index)
    assert has_current_faiss_index(snapshot) and snapshot.metadata["faiss"]["recall"] == 1.0
    queries = np.stack([make_vector(b"%d" % n) for n in range(20)])
    assert search_snapshot(snapshot, queries, 7, neighbor_search=load_faiss_index(snapshot)) == search_snapshot(
        snapshot, queries, 7
    )
    mask = snapshot.filter_mask(["2"])
    expected = search_snapshot(snapshot, queries, 7, mask=mask)
    assert search_snapshot(snapshot, queries, 7, mask=mask, neighbor_search=load_faiss_index(snapshot)) == expected


def test_a_faiss_index_that_misses_many_is_used_on_request(index: Path) -> None:
    pytest.importorskip("faiss")
    with Gallery.open(index) as gallery:
        entry = build_faiss_index(gallery, kind="flat")
        gallery.set_metadata(faiss_beyond=1)
        assert select_search(read_snapshot(index))[0] is not None
        gallery.set_metadata(faiss={**entry, "recall": 0.89})
    snapshot = read_snapshot(index)
    search, description = select_search(snapshot)
    assert search is None and description.startswith("exact, because the FAISS index misses too many")
    assert select_search(snapshot, 1)[0] is not None


def test_outdated_or_corrupt_faiss_index(index: Path) -> None:
    pytest.importorskip("faiss")
    with pytest.raises(InputError, match="has no FAISS index"):
        load_faiss_index(read_snapshot(index))
    with Gallery.open(index) as gallery:
        build_faiss_index(gallery)
        gallery.set_removed(["0009/c2_1.jpg"], removed=True)
        outdated = read_snapshot(index)
        assert not has_current_faiss_index(outdated)
        with pytest.raises(InputError, match="is outdated"):
            load_faiss_index(outdated)
        build_faiss_index(gallery)
    (file,) = index.glob("faiss-*.index")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="missing or corrupt"):
        load_faiss_index(read_snapshot(index))


def test_invalid_searches(index: Path, make_vector: Vector) -> None:
    snapshot = read_snapshot(index)
    with pytest.raises(InputError, match="no image of camera 5; known are 1, 2, 3, 7"):
        snapshot.filter_mask(["5"])
    with pytest.raises(InputError, match="must be at least 1"):
        search_snapshot(snapshot, make_vector(b"1")[None], 0)
    with pytest.raises(InputError, match="was it built with a different model"):
        search_snapshot(snapshot, np.ones((1, 4), dtype=np.float32), 1)


def test_dates_are_times(index: Path) -> None:
    snapshot = read_snapshot(index)
    mask = snapshot.filter_mask((), (1769731200.0, 1769817600.0))  # 2026-01-30 and the midnight after it, UTC
    assert [crop.path for crop, selected in zip(snapshot.crops, mask, strict=True) if selected] == [
        "0010/c7_2026-01-30.jpg"
    ]


def test_the_mean_of_several_crops(make_vector: Vector) -> None:
    rows = np.stack([make_vector(b"1"), make_vector(b"2")])
    mean = mean_query(rows)
    expected = rows.astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(mean[0], expected / np.linalg.norm(expected), atol=1e-7)
    with pytest.raises(InputError, match="zero"):
        mean_query(np.stack([rows[0], -rows[0]]))


@pytest.mark.parametrize(
    ("names", "pattern", "kinds"),
    [
        (("-1", "0000", "0007"), "", {"-1": "junk", "0": "distractor"}),
        (("0000", "0007"), "market1501", {"0": "distractor"}),
        (("0000", "0001"), "", {}),  # persons counted from 0
    ],
)
def test_labels_that_name_no_person(
    tmp_path: Path, embed: Any, make_vector: Vector, names: tuple[str, ...], pattern: str, kinds: dict[str, str]
) -> None:
    (tmp_path / "crops").mkdir()
    for name in names:
        (tmp_path / "crops" / f"{name}_c1s1_5_1.jpg").write_bytes(name.encode())
    with Gallery.create(tmp_path / "i", model_id="m", dim=16, metadata={"pattern": pattern}) as gallery:
        update_index(gallery, list_crops(tmp_path / "crops", "market1501"), embed, progress=False)
    snapshot = read_snapshot(tmp_path / "i")
    [found] = search_snapshot(snapshot, make_vector(b"0007")[None], 9)
    assert snapshot.kinds == kinds and {result.identity: result.kind for result in found if result.kind} == kinds
