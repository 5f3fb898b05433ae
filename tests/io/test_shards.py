from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from traced import traced

from reid.errors import InputError
from reid.io.shards import Shards, open_matrix, open_shards
from reid.ranking import evaluate, rank_matches
from reid.records import Features

LENGTHS = (3, 0, 1, 5, 4)


def parts(width: int = 2, dtype: str = "float32") -> list[np.ndarray]:
    """Shards of which every number tells its row."""
    starts = np.cumsum((0, *LENGTHS))
    return [
        np.arange(a, a + n, dtype=dtype)[:, None] + np.zeros((1, width), dtype)
        for a, n in zip(starts.tolist(), LENGTHS, strict=False)
    ]


def test_every_slice() -> None:
    shards, whole = Shards(parts()), np.concatenate(parts())
    assert (len(shards), shards.shape, shards.dtype, shards.ndim) == (13, (13, 2), np.dtype("float32"), 2)
    for start in range(-15, 16):
        for stop in range(-15, 16):
            found = shards[start:stop]
            assert type(found) is np.ndarray and np.array_equal(found, whole[start:stop]), (start, stop)
            assert found.shape[1] == 2 and found.dtype == np.float32
    assert np.array_equal(shards[:], whole) and np.array_equal(shards[5:], whole[5:])


def test_what_comes_is_no_window_into_the_shards() -> None:
    given = parts()
    shards = Shards(given)
    for found in (shards[4:6], shards[np.array([4, 5])]):
        found += 100
    assert np.array_equal(shards[:], np.concatenate(parts()))


@pytest.mark.parametrize("indices", [[], [0], [12, 0, 12], [3, 4, 3, 8, 9, 2, 2], list(range(12, -1, -1))])
def test_rows_in_any_order_and_more_than_once(indices: list[int]) -> None:
    shards, whole = Shards(parts()), np.concatenate(parts())
    chosen = np.array(indices, dtype=np.int64)
    for form in (chosen, indices, chosen.astype(np.uint8)):
        found = shards[form]
        assert np.array_equal(found, whole[chosen]) and found.shape == (len(indices), 2)


def test_rows_that_are_not_there() -> None:
    shards = Shards(parts())
    for wrong in ([13], [0, -1], [5, 99]):
        with pytest.raises(IndexError, match=r"for 13 rows"):
            shards[np.array(wrong)]
    with pytest.raises(IndexError, match="slices of step 1"):
        shards[::2]


@pytest.mark.parametrize("wrong", [3, np.ones(13, dtype=bool), np.array([1.0]), np.zeros((2, 2), dtype=np.int64)])
def test_other_ways_to_index_are_refused_and_not_misread(wrong: object) -> None:
    # A mask read as indices would give rows 0 and 1 over and over; a plain number would let NumPy read an empty matrix.
    with pytest.raises(TypeError, match="by a slice or an array of integers"):
        Shards(parts())[wrong]
    with pytest.raises(TypeError):
        np.asarray(Shards(parts()))


def test_shards_of_different_kinds() -> None:
    for other in (parts(width=3)[0], parts(dtype="float64")[0], np.zeros(2, np.float32)):
        with pytest.raises(InputError, match=r"shard 1 holds .* shard 0 float32 \(3, 2\)"):
            Shards([parts()[0], other])
    with pytest.raises(InputError, match="at least one"):
        Shards([])


def test_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, part in zip("badce", parts(), strict=True):
        np.save(tmp_path / f"{name}.npy", part)
    (tmp_path / "notes.txt").write_text("no shard")
    shards = open_shards(tmp_path)
    given = dict(zip("badce", parts(), strict=True))
    assert np.array_equal(shards[:], np.concatenate([given[name] for name in "abcde"]))


def test_no_files(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"not a folder with \.npy files"):
            open_shards(folder)
    with pytest.raises(InputError, match="no such feature file"):
        open_matrix(tmp_path / "missing.npy")


@pytest.mark.parametrize("left", [0, 5, 60, 127, 128, 200, -1])
def test_files_cut_short(left: int, tmp_path: Path) -> None:
    path = tmp_path / "b.npy"
    np.save(path, np.zeros((100, 4), np.float32))
    np.save(tmp_path / "a.npy", np.zeros((100, 4), np.float32))
    path.write_bytes(path.read_bytes()[:left])
    for read in (lambda: open_matrix(path), lambda: open_shards(tmp_path)):
        with pytest.raises(InputError, match=r"b\.npy: corrupt, truncated, or not a \.npy file"):
            read()


@pytest.mark.parametrize(
    "matrix", [np.zeros((3, 2), int), np.zeros(3), np.zeros((3, 2, 1)), np.zeros((3, 2), complex), np.zeros(())]
)
def test_what_is_no_matrix_of_floats(matrix: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", matrix)
    with pytest.raises(InputError, match=r"a\.npy: features must be a floating-point \(N, D\) matrix, not"):
        open_matrix(tmp_path / "a.npy")


def test_what_is_no_array(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}], dtype=object))
    with pytest.raises(InputError, match="corrupt, truncated, or not"):
        open_matrix(path)
    with path.open("wb") as file:
        np.savez(file, values=np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"an \.npz archive"):
        open_matrix(path)


def test_files_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 2), np.float32))
    for other in (np.zeros((3, 5), np.float32), np.zeros((3, 2), np.float16)):
        np.save(tmp_path / "b.npy", other)
        with pytest.raises(InputError, match=r"b\.npy: .* but a\.npy holds float32 of width 2"):
            open_shards(tmp_path)


def sides(gallery: int, width: int = 16, queries: int = 40) -> tuple[Features, Features]:
    rng = np.random.default_rng(0)
    made = []
    for rows, lowest in ((queries, 1), (gallery, -1)):
        values = rng.normal(size=(rows, width)).astype(np.float32)
        made.append(Features(values, rng.integers(lowest, 15, rows), rng.integers(1, 4, rows)))
    return made[0], made[1]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_gallery_in_shards_is_ranked_as_one(metric: str, tmp_path: Path) -> None:
    query, gallery = sides(5000)
    for i, part in enumerate(np.split(gallery.values, [1, 700, 700, 4097])):
        np.save(tmp_path / f"{i}.npy", part)
    shards = open_shards(tmp_path)
    stored = Features(shards, gallery.identities, gallery.cameras)
    expected = rank_matches(query, gallery, metric=metric)
    assert np.array_equal(rank_matches(query, stored, metric=metric).ranks, expected.ranks)
    assert evaluate(query, stored, metric=metric) == expected.scores()


def peak(path: Path, rows: int, first_pass: str) -> int:
    """Bytes that ranking takes beyond the labels, which are per-row bookkeeping."""
    query, _ = sides(1)
    rng = np.random.default_rng(1)
    # Few matches, all else distractors, as in a gallery made larger.
    identities = np.zeros(rows, dtype=np.int64)
    identities[:200] = rng.integers(1, 15, 200)
    gallery = Features(np.load(path, mmap_mode="r")[:rows], identities, rng.integers(1, 4, rows))
    return traced(lambda: rank_matches(query, gallery, first_pass=first_pass))[1]


@pytest.mark.parametrize("first_pass", ["auto", "float32"])
def test_memory_does_not_grow_with_the_gallery(first_pass: str, tmp_path: Path) -> None:
    path, rows = tmp_path / "gallery.npy", 80_000
    np.save(path, np.random.default_rng(2).normal(size=(rows, 16)).astype(np.float32))
    peak(path, 10_000, first_pass)  # what is kept for good
    small, large = peak(path, rows // 4, first_pass), peak(path, rows, first_pass)
    # A few numbers for each label; a row of features alone would be 64 bytes, its distances 160.
    assert large - small < 3 * rows // 4 * 40, (small, large)
