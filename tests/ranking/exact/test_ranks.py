from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import exact_reference
import numpy as np
import pytest
import torch
from exact_reference import KINDS, SIZES, drawn, labels, ranks, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from reid.io.shards import Shards
from reid.ranking import Ranking, rank_matches
from reid.ranking.exact import first_pass as first_pass_module
from reid.ranking.exact import gallery_rows as source
from reid.ranking.exact import ranks as nearer
from reid.ranking.exact.first_pass import integers_exact
from reid.ranking.exact.options import ComparisonOptions
from reid.ranking.exact.ranks import count_nearer
from reid.records import Features

Storage = Callable[[np.ndarray, Path], Any]


def as_array(values: np.ndarray, folder: Path) -> np.ndarray:
    return values


def as_memory_map(values: np.ndarray, folder: Path) -> np.ndarray:
    path = folder / f"{hashlib.sha1(values.tobytes()).hexdigest()}.npy"
    np.save(path, values)
    return np.load(path, mmap_mode="r")


def as_shards(values: np.ndarray, folder: Path) -> Shards:
    """Cut where neither tiles nor blocks are."""
    cuts = [0, 1, 1, 100, 300, len(values)]
    return Shards([values[a:b] for a, b in pairwise(cuts)])


def as_tensor(values: np.ndarray, folder: Path) -> torch.Tensor:
    return torch.from_numpy(values)


STORAGES: dict[str, Storage] = {
    "array": as_array,
    "memory map": as_memory_map,
    "shards": as_shards,
    "tensor": as_tensor,
}
PASSES = ("float32", "integers")
# Rows of the smallest tile there is.
TILE = 256


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(source, "_TILE_BYTES", 1)
    yield


def available(first_pass: str, width: int) -> bool:
    return first_pass == "float32" or integers_exact(width)


def features(values: Any, of: np.ndarray) -> Features:
    return Features(values, of[:, 0], of[:, 1])


def listed(found: Ranking) -> list[list[int]]:
    return [found.hits(i).tolist() for i in range(len(found.matches))]


def sides(kind: str, width: int, *, queries: int = 23, gallery: int = 700, **options: Any) -> tuple[Any, ...]:
    """(query, its labels, gallery, its labels), with some gallery rows equal to queries."""
    rng = np.random.default_rng(width)
    query, rows = drawn(kind, queries, gallery, width, **options)
    rows[rng.integers(0, gallery, 5)] = query[:5]
    return query, labels(rng, queries, lowest=1), rows, labels(rng, gallery, lowest=-1)


@functools.lru_cache
def ranked_sides(kind: str, width: int) -> tuple[Any, ...]:
    """`sides`, which must not be changed, and their ranks."""
    query, query_labels, gallery, gallery_labels = found = sides(kind, width)
    return (*found, ranks(query, query_labels, gallery, gallery_labels))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("first_pass", PASSES)
@pytest.mark.parametrize("kind", ["random", "duplicated", "lengths"])
def test_every_way_gives_the_same_ranking(
    kind: str, first_pass: str, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    width = 37
    if not available(first_pass, width):
        pytest.skip("this machine has no exact 8-bit products")
    query, query_labels, gallery, gallery_labels, expected = ranked_sides(kind, width)
    stored = [STORAGES[storage](part, tmp_path) for part in (query, gallery)]
    if storage == "shards":
        stored[0] = query
    for block, tile in product((1, 7, 1000), (1, 1 << 24)):
        monkeypatch.setattr(source, "_TILE_BYTES", tile)
        found = rank_matches(
            features(stored[0], query_labels), features(stored[1], gallery_labels), block=block, first_pass=first_pass
        )
        assert listed(found) == expected, (block, tile)


@pytest.mark.parametrize("width", [1, 3, 37, 512, 1025, 2049])
@pytest.mark.parametrize("kind", [*KINDS, *SIZES])
@pytest.mark.usefixtures("small_tiles")
def test_every_input_is_ranked_exactly(kind: str, width: int, tmp_path: Path) -> None:
    rng = np.random.default_rng([width, len(kind)])
    dtypes = [np.float32, np.float64] + ([] if kind in SIZES else [np.float16])
    many = width < 100
    for number, dtype in enumerate(dtypes if many else [dtypes[width % len(dtypes)]]):
        sizes = (23, 600) if many else (9, 300)
        query, query_labels, gallery, gallery_labels = sides(
            kind, width, queries=sizes[0], gallery=sizes[1], dtype=dtype
        )
        expected = ranks(query, query_labels, gallery, gallery_labels)
        # Both with the first of the types; the others take turns.
        for first_pass in PASSES if number == 0 else PASSES[(number + len(kind)) % 2 :][:1]:
            if not available(first_pass, width):
                continue
            name = ["array", "memory map", "tensor"][rng.integers(3)]
            stored = [STORAGES[name](part, tmp_path) for part in (query, gallery)]
            block = int(rng.choice([1, 7, 1000])) if many else 1000
            found = rank_matches(
                features(stored[0], query_labels),
                features(stored[1], gallery_labels),
                block=block,
                first_pass=first_pass,
            )
            assert listed(found) == expected, (dtype, first_pass, name, block)


@pytest.mark.parametrize("storage", ["array", "tensor"])
@pytest.mark.parametrize("first_pass", PASSES)
@pytest.mark.parametrize("kind", ["random", "duplicated", "lengths", "one ulp apart", "offset"])
@pytest.mark.usefixtures("small_tiles")
def test_cosine_is_the_distance_of_unit_rows(kind: str, first_pass: str, storage: str, tmp_path: Path) -> None:
    if not available(first_pass, 37):
        pytest.skip("this machine has no exact 8-bit products")
    query, query_labels, gallery, gallery_labels = sides(kind, 37)
    expected = ranks(unit(query), query_labels, unit(gallery), gallery_labels)
    stored = [STORAGES[storage](part, tmp_path) for part in (query, gallery)]
    found = rank_matches(
        features(stored[0], query_labels), features(stored[1], gallery_labels), metric="cosine", first_pass=first_pass
    )
    assert listed(found) == expected


# Numbers whose sums and differences tie, cancel, vanish or differ in the last bit.
NUMBERS = [0.0, -0.0, 1.0, -1.0, 2.0, 1 + 2.0**-23, 1 - 2.0**-24, 1 / 3, 3e4, -3e4, 1e-3, 1e-30, 2.0**-149, 2.0**-70]


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_anything_small_is_ranked_exactly(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 5))
    row = st.lists(st.sampled_from(NUMBERS), min_size=width, max_size=width)

    def draw(lowest: int, most: int) -> tuple[np.ndarray, np.ndarray]:
        label = st.tuples(st.integers(lowest, 2), st.integers(1, 2))
        table = data.draw(st.lists(st.tuples(row, label), min_size=1, max_size=most))
        return np.array([r for r, _ in table], dtype=np.float32), np.array([tag for _, tag in table])

    query, query_labels = draw(1, 5)
    gallery, gallery_labels = draw(-1, 14)
    # One match at least, so that there is something to rank.
    gallery = np.concatenate([gallery, np.ones((1, width), np.float32)])
    gallery_labels = np.concatenate([gallery_labels, [[query_labels[0, 0], query_labels[0, 1] + 1]]])
    expected = ranks(query, query_labels, gallery, gallery_labels)
    for first_pass in PASSES:
        if available(first_pass, width):
            found = rank_matches(
                features(query, query_labels),
                features(gallery, gallery_labels),
                block=data.draw(st.integers(1, 6)),
                first_pass=first_pass,
            )
            assert listed(found) == expected


@pytest.mark.usefixtures("small_tiles")
def test_equal_rows_across_tiles_rank_by_index() -> None:
    # The match stands between equal rows in tiles before and after it: nearer are those of the same row before it.
    width, rows = 19, 4 * TILE
    query = np.random.default_rng(0).normal(size=(1, width)).astype(np.float32)
    other = np.random.default_rng(1).normal(size=(1, width)).astype(np.float32)
    gallery = np.repeat(other, rows, axis=0)
    for place in (0, 1, TILE - 1, TILE, 2 * TILE, rows - 1):
        gallery_labels = np.array([[2, 2]] * rows)
        gallery_labels[place] = 1, 2
        for first_pass in PASSES:
            if available(first_pass, width):
                found = rank_matches(
                    features(query, np.array([[1, 1]])), features(gallery, gallery_labels), first_pass=first_pass
                )
                assert listed(found) == [[place + 1]]


@pytest.mark.usefixtures("small_tiles")
def test_one_ulp_more_in_one_number_is_farther() -> None:
    # All gallery rows but one equal, on both sides of a tile's border; one number of that one is moved by one ulp.
    rng = np.random.default_rng(2)
    for width in (1, 37, 513):
        query = np.zeros((1, width), np.float32)
        base = (1 + rng.random(width)).astype(np.float32)
        for step in (-np.inf, np.inf):
            gallery = np.tile(base, (2 * TILE, 1))
            gallery[TILE - 1, width // 2] = np.nextafter(base[width // 2], np.float32(step))
            gallery_labels = np.array([[2, 2]] * len(gallery))
            gallery_labels[TILE - 1] = 1, 2
            found = rank_matches(features(query, np.array([[1, 1]])), features(gallery, gallery_labels))
            assert listed(found) == [[1 if step < 0 else 2 * TILE]]


@pytest.mark.parametrize("kind", ["random", "duplicated"])
def test_the_order_of_the_gallery_matters_among_ties_alone(kind: str) -> None:
    query, query_labels, gallery, gallery_labels = sides(kind, 16)
    order = np.random.default_rng(3).permutation(len(gallery))
    # Rows that occur once, and those of the stock that occur often: a tie is broken by index.
    first = rank_matches(features(query, query_labels), features(gallery, gallery_labels))
    second = rank_matches(features(query, query_labels), features(gallery[order], gallery_labels[order]))
    assert listed(second) == ranks(query, query_labels, gallery[order], gallery_labels[order])
    assert (listed(first) == listed(second)) == (kind == "random")


@pytest.mark.usefixtures("small_tiles")
def test_labels_that_leave_tiles_or_queries_with_nothing() -> None:
    query, query_labels, gallery, gallery_labels = sides("random", 8)
    gallery_labels[:TILE, 0] = -1  # a tile of junk alone
    gallery_labels[TILE : 2 * TILE, 0] = 0  # one of distractors
    query_labels[3:9, 0] = 99  # queries of nobody, a whole block of them
    for block in (1, 3, 1000):
        found = rank_matches(features(query, query_labels), features(gallery, gallery_labels), block=block)
        assert listed(found) == ranks(query, query_labels, gallery, gallery_labels)
        assert found.hits(4).tolist() == []


def plain_count(query: np.ndarray, gallery: np.ndarray, left_out: set[tuple[int, int]], kept: np.ndarray) -> Any:
    """(query, place) -> gallery rows before it in the sorted list, of those that count."""
    order = exact_reference.sorted_gallery(query, gallery)

    def before(i: int, place: int) -> int:
        earlier = order[i][: int(np.flatnonzero(order[i] == place)[0])]
        return sum((i, int(j)) not in left_out and bool(kept[j]) for j in earlier)

    return before


@pytest.mark.parametrize("kind", ["random", "whole"])
@pytest.mark.usefixtures("small_tiles")
def test_any_targets_and_anything_left_out(kind: str) -> None:
    rng = np.random.default_rng(4)
    query, gallery = drawn(kind, 12, 600, 9)
    number = rng.integers(0, 5, len(query))
    offsets = np.concatenate([[0], np.cumsum(number)])
    targets = np.concatenate([np.sort(rng.choice(len(gallery), n, replace=False)) for n in number])
    left_out = {(int(i), int(j)) for i, j in zip(rng.integers(0, 12, 900), rng.integers(0, 600, 900), strict=True)}
    kept = rng.random(600) < 0.8

    def pairs(first_query: int, queries: int, first: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        here = [
            (i - first_query, j - first)
            for i, j in sorted(left_out)
            if first_query <= i < first_query + queries and first <= j < first + rows
        ]
        return tuple(np.array(here, dtype=np.int64).reshape(-1, 2).T)  # type: ignore[return-value]

    before = plain_count(query, gallery, left_out, kept)
    owners = np.repeat(np.arange(len(query)), number)
    expected = [before(i, j) for i, j in zip(owners.tolist(), targets.tolist(), strict=True)]
    for block, first_pass in product((1, 5, 1000), PASSES):
        if available(first_pass, 9):
            options = ComparisonOptions(block=block, first_pass=first_pass)
            found = count_nearer(query, gallery, offsets, targets, excluded=pairs, keep=kept, options=options)
            assert found.counts.tolist() == expected
            distances = exact_reference.distances(query, gallery)
            for i in range(len(query)):
                mine = targets[offsets[i] : offsets[i + 1]]
                order = np.argsort(np.lexsort((mine, distances[i, mine])))
                assert found.order[offsets[i] : offsets[i + 1]].tolist() == order.tolist()


@pytest.mark.usefixtures("small_tiles")
def test_integers_give_way_where_they_leave_too_much_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearer, "_MIN_CROWDED_PER_ROW", np.inf)
    if not integers_exact(16):
        pytest.skip("this machine has no exact 8-bit products")
    width = 16
    for kind, expected in (("random", "integers"), ("duplicated", "integers, then float32")):
        query, _, gallery, _ = sides(kind, width, queries=200, gallery=1500)
        # Few true matches a query, or there is much to compare with.
        rng = np.random.default_rng(5)
        query_labels, gallery_labels = (labels(rng, n, lowest=1, identities=99) for n in (200, 1500))
        plain, quick = (
            rank_matches(features(query, query_labels), features(gallery, gallery_labels), first_pass=first_pass)
            for first_pass in PASSES
        )
        assert listed(plain) == listed(quick) == ranks(query, query_labels, gallery, gallery_labels)
        assert plain.work is not None and quick.work is not None
        assert (plain.work.first_pass, quick.work.first_pass) == ("float32", expected)
        assert plain.work.pairs == quick.work.pairs == len(gallery) * len(query)
        share = quick.work.recomputed / quick.work.pairs
        assert (share > nearer._MAX_RECOMPUTED) == (kind == "duplicated")
        # What float32 leaves open is a part of what integers do.
        assert plain.work.recomputed <= quick.work.recomputed


def test_nothing_is_recomputed_where_nothing_is_close() -> None:
    # Whole distances apart; the bound is far below 1.
    query, gallery = np.zeros((1, 1), np.float32), np.arange(1, 101, dtype=np.float32)[:, None]
    gallery_labels = np.array([[2, 2]] * 100)
    gallery_labels[49] = 1, 2
    for first_pass in PASSES:
        if available(first_pass, 1):
            found = rank_matches(
                features(query, np.array([[1, 1]])), features(gallery, gallery_labels), first_pass=first_pass
            )
            assert listed(found) == [[50]] and found.work is not None and found.work.recomputed == 0
    # And everything is where all is equal.
    found = rank_matches(features(query, np.array([[1, 1]])), features(np.ones((100, 1), np.float32), gallery_labels))
    assert listed(found) == [[50]] and found.work is not None and found.work.recomputed == 99


def test_tensors_that_ask_for_gradients() -> None:
    query, query_labels, gallery, gallery_labels = sides("random", 8)
    tensors = [torch.from_numpy(part).requires_grad_() for part in (query, gallery)]
    found = rank_matches(features(tensors[0], query_labels), features(tensors[1], gallery_labels))
    assert listed(found) == ranks(query, query_labels, gallery, gallery_labels)


@pytest.mark.parametrize("first_pass", PASSES)
def test_bfloat16_tensors(first_pass: str) -> None:
    if not available(first_pass, 24):
        pytest.skip("this machine has no exact 8-bit products")
    query, query_labels, gallery, gallery_labels = sides("random", 24)
    tensors = [torch.from_numpy(part).bfloat16() for part in (query, gallery)]
    found = rank_matches(
        features(tensors[0], query_labels), features(tensors[1], gallery_labels), first_pass=first_pass
    )
    wide = [tensor.float().numpy() for tensor in tensors]
    assert listed(found) == ranks(wide[0], query_labels, wide[1], gallery_labels)


def test_arrays_of_any_layout_and_byte_order() -> None:
    query, query_labels, gallery, gallery_labels = sides("random", 24)
    expected = ranks(query[:, ::-2], query_labels, gallery[:, ::-2], gallery_labels)
    for layout in (lambda m: m[:, ::-2], lambda m: np.asfortranarray(m[:, ::-2])):
        found = rank_matches(features(layout(query), query_labels), features(layout(gallery), gallery_labels))
        assert listed(found) == expected
    offsets, targets = np.arange(len(query) + 1), np.arange(len(query))

    def nothing(first_query: int, queries: int, first: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        return (np.empty(0, np.int64),) * 2

    counts = [
        count_nearer(query.astype(order), gallery.astype(order), offsets, targets, excluded=nothing).counts.tolist()
        for order in ("<f4", ">f4")
    ]
    assert counts[0] == counts[1]


@pytest.mark.usefixtures("small_tiles")
def test_the_reported_first_pass_is_the_one_used(monkeypatch: pytest.MonkeyPatch) -> None:
    if not integers_exact(16):
        pytest.skip("this machine has no exact 8-bit products")
    plain = first_pass_module._by_integers

    def shapes_of_a_gpu(query: Any, tile: Any) -> bool:
        return plain(query, tile) and len(tile.squared) % 8 == 0

    monkeypatch.setattr(first_pass_module, "_by_integers", shapes_of_a_gpu)
    query, query_labels, gallery, gallery_labels = sides("random", 16, queries=40, gallery=1501)
    found = rank_matches(features(query, query_labels), features(gallery, gallery_labels), first_pass="integers")
    assert found.work is not None and sorted(found.work.first_pass.split(", then ")) == ["float32", "integers"]
    assert listed(found) == ranks(query, query_labels, gallery, gallery_labels)
