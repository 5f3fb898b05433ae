from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reid.errors import InputError
from reid.io.feature_files import read_features
from reid.io.shards import Shards
from reid.records import Features

Sides = tuple[Features, Features]


def assert_equal(found: Features, expected: Features, *, paths: bool = False) -> None:
    np.testing.assert_array_equal(found.values[:], expected.values)
    np.testing.assert_array_equal(found.identities, expected.identities)
    np.testing.assert_array_equal(found.cameras, expected.cameras)
    assert found.paths == (expected.paths if paths else ())


def table(path: Path, side: Features, rows: slice = slice(None)) -> None:
    lines = [f"{camera},{identity}" for camera, identity in zip(side.cameras[rows], side.identities[rows], strict=True)]
    path.write_text("\n".join(["camera,identity", *lines]) + "\n")


def write(folder: Path, sides: Sides, kind: str, prefix: str = "") -> None:
    """Both sides as arrays, with labels of one kind."""
    for part, side in zip(("query", "gallery"), sides, strict=True):
        stem = f"{prefix}{part}"
        np.save(folder / f"{stem}.npy", side.values)
        if kind == "csv":
            table(folder / f"{stem}.csv", side)
        for name, labels in (("ids", side.identities), ("cameras", side.cameras)):
            if kind == "npy":
                np.save(folder / f"{stem}_{name}.npy", labels.astype(np.int16)[:, None])
            if kind == "txt":
                (folder / f"{stem}_{name}.txt").write_text("".join(f"{label}\n" for label in labels))


@pytest.mark.parametrize("kind", ["csv", "npy", "txt"])
def test_a_folder_and_either_of_its_files(tmp_path: Path, sides: Sides, kind: str) -> None:
    write(tmp_path, sides, kind)
    for path in (tmp_path, tmp_path / "query.npy", tmp_path / "gallery.npy"):
        query, gallery, name = read_features(path)
        assert_equal(query, sides[0])
        assert_equal(gallery, sides[1])
        assert name == tmp_path.name


def test_a_prefix_names_the_features(tmp_path: Path, sides: Sides) -> None:
    write(tmp_path, sides, "npy", "r50_")
    write(tmp_path, (sides[0], sides[0]), "npy", "other_")
    _, gallery, name = read_features(tmp_path / "r50_query.npy")
    assert_equal(gallery, sides[1])
    assert name == "r50"


def test_a_table_may_give_paths_and_other_columns(tmp_path: Path, sides: Sides) -> None:
    write(tmp_path, sides, "csv")
    rows = zip(sides[0].identities, sides[0].paths, sides[0].cameras, strict=True)
    (tmp_path / "query.csv").write_text(
        "\n".join(["Identity, note ,path,camera", *(f'{i},"x, y",{p},{c}' for i, p, c in rows)])
    )
    assert_equal(read_features(tmp_path)[0], sides[0], paths=True)


def test_a_large_gallery_stays_on_the_disk(tmp_path: Path, sides: Sides) -> None:
    large = Features(np.tile(sides[1].values, (200, 1)), np.tile(sides[1].identities, 200), np.ones(2400, np.int64))
    write(tmp_path, (sides[0], large), "npy")
    _, gallery, _ = read_features(tmp_path)
    assert not isinstance(gallery.values, np.memmap)
    query, gallery, _ = read_features(tmp_path, max_in_memory=1000)
    assert isinstance(gallery.values, np.memmap) and not gallery.values.flags.writeable
    assert not isinstance(query.values, np.memmap)
    assert_equal(gallery, large)


@pytest.mark.parametrize("labels", ["beside", "each"])
def test_a_folder_of_shards(tmp_path: Path, sides: Sides, labels: str) -> None:
    write(tmp_path, sides, "csv")
    (tmp_path / "gallery.npy").unlink()
    (tmp_path / "gallery").mkdir()
    for number, rows in enumerate((slice(0, 5), slice(5, 6), slice(6, 12))):
        np.save(tmp_path / "gallery" / f"{number:03d}.npy", sides[1].values[rows])
        if labels == "each":
            table(tmp_path / "gallery" / f"{number:03d}.csv", sides[1], rows)
    if labels == "each":
        (tmp_path / "gallery.csv").unlink()
    _, gallery, _ = read_features(tmp_path)
    assert isinstance(gallery.values, Shards)
    assert_equal(gallery, sides[1])
    if labels == "each":
        table(tmp_path / "gallery" / "001.csv", sides[1], slice(0, 2))
        with pytest.raises(InputError, match=r"001\.csv: 2 labels for 1 feature rows"):
            read_features(tmp_path)
        (tmp_path / "gallery" / "001.csv").unlink()
        with pytest.raises(InputError, match=r"001\.npy: no labels next to it"):
            read_features(tmp_path)


@pytest.mark.parametrize(
    ("encoding", "separator", "header", "number"),
    [
        pytest.param("utf-8-sig", ",", "identity,camera", "{}", id="byte order mark"),
        pytest.param("utf-8", ";", '"Identity";"Camera"', '"{}"', id="semicolons"),
        pytest.param("utf-8", ",", "# identity,camera", "{:.18e}", id="np.savetxt"),
    ],
)
def test_tables_of_other_programs(
    tmp_path: Path, sides: Sides, encoding: str, separator: str, header: str, number: str
) -> None:
    write(tmp_path, sides, "csv")
    rows = zip(sides[0].identities.tolist(), sides[0].cameras.tolist(), strict=True)
    lines = [header, *(separator.join(number.format(label) for label in row) for row in rows)]
    (tmp_path / "query.csv").write_text("\n".join(lines), encoding=encoding)
    assert_equal(read_features(tmp_path)[0], sides[0])


def test_labels_of_np_savetxt(tmp_path: Path, sides: Sides) -> None:
    write(tmp_path, sides, "txt")
    np.savetxt(tmp_path / "query_ids.txt", sides[0].identities)
    (tmp_path / "query_cameras.txt").unlink()
    np.savetxt(tmp_path / "query_cameras.csv", sides[0].cameras)
    assert_equal(read_features(tmp_path)[0], sides[0])
    (tmp_path / "query_ids.txt").write_text("1.5\n" * 5)
    with pytest.raises(InputError, match=r"query_ids.txt: must hold one whole number per line \('1.5' is not"):
        read_features(tmp_path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def save(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, array)


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


@pytest.mark.parametrize(
    ("kind", "file", "harm", "words"),
    [
        ("npy", "gallery.npy", cut, "gallery.npy: truncated at 290 bytes"),
        ("npy", "query.npy", lambda path: path.write_bytes(b""), "query.npy: truncated at 0 bytes"),
        ("npy", "query.npy", text("hello"), "query.npy: truncated .* or not a plain array"),
        ("npy", "query.npy", save(np.array([{}] * 5)), "not a plain array"),
        ("npy", "query.npy", save(np.arange(5)), r"query.npy: .* int64 \(5,\); are these identities or cameras\?"),
        ("npy", "query.npy", save(np.ones((5, 4), np.int32)), "are these identities or cameras?"),
        ("npy", "gallery_ids.npy", save(np.ones((12, 4))), r"gallery_ids.npy: .*\(12, 4\); are these features\?"),
        ("npy", "gallery_ids.npy", save(np.arange(5)), "gallery_ids.npy: 5 labels for 12 feature rows"),
        ("npy", "gallery.npy", save(np.zeros((12, 7))), "query features have 4 dimensions, gallery features 7"),
        ("npy", "gallery.npy", save(np.zeros((0, 4), np.float32)), "labels for 0 feature rows"),
        ("npy", "gallery.npy", Path.unlink, "has no gallery.npy and no folder gallery/ of shards"),
        ("npy", "query_ids.npy", Path.unlink, "has no query_ids.npy"),
        ("txt", "query_cameras.txt", text("1\n2\nthree"), "query_cameras.txt: must hold one whole number per line"),
        ("csv", "query.csv", Path.unlink, "no labels next to it; looked for query.csv"),
        ("csv", "query.csv", lambda path: path.rename(path.with_suffix(".mat")), r"; found query\.mat$"),
        ("csv", "query.csv", text("id,cam\n1,2\n"), "has no column identity and camera; the first line is id, cam"),
        ("csv", "query.csv", text("identity,camera\n1,2\n3\n"), "line 3 has no whole numbers"),
        ("csv", "query.csv", text("identity,camera\n1,2\n3,x\n"), "line 3 has no whole numbers"),
        ("csv", "query.csv", text("identity,camera\n\n1,2\n\n1_2,1\n"), "line 5 has no whole numbers"),
        ("csv", "query.csv", text(""), "has no column identity and camera"),
    ],
)
def test_each_mistake_is_reported(
    tmp_path: Path, sides: Sides, kind: str, file: str, harm: Callable[[Path], object], words: str
) -> None:
    write(tmp_path, sides, kind)
    harm(tmp_path / file)
    with pytest.raises(InputError, match=words) as raised:
        read_features(tmp_path)
    assert "\n" not in str(raised.value)


def test_an_array_of_another_name(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", np.zeros((2, 2)))
    with pytest.raises(InputError, match="the name must end in query"):
        read_features(tmp_path / "features.npy")


@pytest.mark.parametrize("code", [">f4", ">f8", ">f2"])
def test_features_of_a_machine_with_another_byte_order(tmp_path: Path, code: str) -> None:
    values = np.random.default_rng(0).normal(size=(2000, 3))
    for split in ("query", "gallery"):
        np.save(tmp_path / f"{split}.npy", values.astype(code))
        for kind in ("ids", "cameras"):
            np.save(tmp_path / f"{split}_{kind}.npy", np.arange(2000).astype(">i4"))
    query, _, _ = read_features(tmp_path)
    assert query.values.dtype == np.dtype(code).newbyteorder("=") and query.values.dtype.isnative
    np.testing.assert_array_equal(query.values, values.astype(code))
    assert query.identities.tolist() == list(range(2000))
