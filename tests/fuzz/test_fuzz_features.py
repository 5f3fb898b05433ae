"""Feature files: `.npz`, `.npy`, shards, label files and MATLAB's."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from fuzz.harness import attempt, fuzz, mutated, texts
from hypothesis import strategies as st

from reid.data.datasets.cuhk03np import read_cuhk03np_detected
from reid.io.feature_files import read_features, read_matrix_folder, read_multi_query, read_training_features
from reid.records import Features

NUMBERS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
LABELS = np.array([1, 2, 1, 2])


def packed(compress: bool = False, **changes: Any) -> bytes:
    arrays = {f"{part}_{name}": value for part in ("query", "gallery", "train") for name, value in (
        ("values", NUMBERS), ("identities", LABELS), ("cameras", LABELS), ("paths", np.array(["a", "b", "c", "d"])),
    )}  # fmt: skip
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, **{**arrays, **changes})
    return buffer.getvalue()


def one(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


def check(found: Any) -> None:
    if found is not None:
        query, gallery, _ = found
        assert isinstance(query, Features) and isinstance(gallery, Features)
        assert query.values.shape[1] == gallery.values.shape[1]


ARCHIVES = [packed(), packed(compress=True)]


@fuzz(mutated(*ARCHIVES))
def test_mutated_npz(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "features.npz"
    path.write_bytes(data)
    check(attempt("features: npz", lambda: read_features(path)))
    attempt("features: npz", lambda: read_training_features(path))


ARRAYS = st.sampled_from(
    [
        *(NUMBERS, NUMBERS.T, NUMBERS[:2], NUMBERS[:0], NUMBERS[:, :0], NUMBERS.astype(np.float16), NUMBERS * np.nan),
        *(
            LABELS,
            LABELS[:3],
            LABELS.astype(float),
            LABELS + 0.5,
            LABELS * 1j,
            LABELS[None],
            LABELS[:, None],
            LABELS > 1,
        ),
        *(
            np.array(["a"] * 4),
            np.array("x"),
            np.float32(1),
            np.zeros((1,) * 30),
            np.array(["2020-01-01"] * 4, "M8[D]"),
        ),
        *(np.full(4, 2**64 - 1, np.uint64), np.full(4, 1e300), np.zeros(4, [("a", "i4")]), np.array([b"x"] * 4)),
    ]
)
KEYS = [
    f"{part}_{name}" for part in ("query", "gallery", "train") for name in ("values", "identities", "cameras", "paths")
]


@fuzz(st.dictionaries(st.sampled_from([*KEYS, "feature", "other"]), ARRAYS, max_size=4))
def test_other_arrays_in_an_npz(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "features.npz"
    path.write_bytes(packed(**changes))
    check(attempt("features: npz arrays", lambda: read_features(path)))
    attempt("features: npz arrays", lambda: read_training_features(path))


HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), }",
    *(
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
        for shape in (
            "(10**12,)",
            "(1000000000000, 3)",
            "(-4, 3)",
            "(4, -3)",
            "(9223372036854775807, 9223372036854775807)",
            "(0, 1000000000000)",
            "()",
            "(4,)",
            "[4, 3]",
            "(4.0, 3)",
            "(True, 3)",
            "'x'",
            "(" + "1," * 70 + ")",
        )
    ),
    *(
        f"{{'descr': {kind}, 'fortran_order': True, 'shape': (4, 3), }}"
        for kind in (
            "'|O'",
            "'<f16'",
            "'|V0'",
            "'<U99999999'",
            "'|S0'",
            "[('a', '<f4')]",
            "'<f4,<f4'",
            "'M8[ns]'",
            "None",
            "3",
            "[]",
            "[('', '')]",
        )
    ),
    *(
        "{}",
        "[]",
        "",
        "(" * 500,
        "{'descr': '<f4'}",
        "__import__('os').system('true')",
        "x" * 20_000,
        "\xff",
        "1" * 5000,
        "{1: 2",
    ),
]


@fuzz(st.sampled_from(HEADERS), st.integers(0, 4), st.binary(max_size=48), st.sampled_from((".npy", ".npz")))
def test_headers(tmp_path: Path, header: str, version: int, tail: bytes, kind: str) -> None:
    text = header.encode("latin1") + b"\n"
    data = b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version < 2 else 4, "little") + text
    folder = tmp_path / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if kind == ".npy":
        (folder / "query.npy").write_bytes(data + NUMBERS.tobytes()[: len(tail)] + tail)
        (folder / "gallery.npy").write_bytes(one(NUMBERS))
        for part in ("query", "gallery"):
            (folder / f"{part}.csv").write_text("identity,camera\n" + "1,1\n" * 4)
        check(attempt("features: headers", lambda: read_features(folder)))
        attempt("features: headers", lambda: read_matrix_folder(folder))
        return
    with zipfile.ZipFile(io.BytesIO(packed())) as good, zipfile.ZipFile(folder / "features.npz", "w") as out:
        for name in good.namelist():
            out.writestr(name, data + tail if name == "query_values.npy" else good.read(name))
    check(attempt("features: headers", lambda: read_features(folder / "features.npz")))


TABLES = [b"identity,camera,path\n1,1,a\n2,1,b\n1,2,c\n2,2,d\n", b"camera,identity\n1,1\n1,2\n2,1\n2,2\n"]


@fuzz(
    mutated(one(NUMBERS), one(NUMBERS.T), one(NUMBERS, (2, 0))),
    mutated(*TABLES),
    mutated(one(LABELS), b"1\n2\n1\n2\n"),
    st.integers(0, 3),
)
def test_mutated_arrays_and_labels(tmp_path: Path, array: bytes, table: bytes, labels: bytes, kind: int) -> None:
    folder = tmp_path / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "query.npy").write_bytes(array if kind else one(NUMBERS))
    if kind == 3:
        (folder / "gallery").mkdir()
        (folder / "gallery" / "000.npy").write_bytes(array)
        (folder / "gallery" / "000.csv").write_bytes(table)
    else:
        (folder / "gallery.npy").write_bytes(one(NUMBERS))
    for part in ("query", "gallery"):
        if kind == 2:
            (folder / f"{part}_ids.npy").write_bytes(labels)
            (folder / f"{part}_cameras.txt").write_bytes(labels)
        elif kind < 2:
            (folder / f"{part}.csv").write_bytes(table)
    check(attempt("features: npy and labels", lambda: read_features(folder)))


def matlab(compressed: bool = False, form: str = "5", **changes: Any) -> bytes:
    arrays = {f"{part}_{name}": value for part in ("query", "gallery", "mquery") for name, value in (
        ("f", NUMBERS), ("label", LABELS), ("cam", LABELS),
    )}  # fmt: skip
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {**arrays, **changes}, do_compression=compressed, format=form)
    return buffer.getvalue()


CELLS = np.array([["a", np.array([1])], [{"x": 1}, "b"]], dtype=object)
MATS = [
    matlab(),
    matlab(compressed=True),
    matlab(form="4"),
    matlab(query_f=CELLS),
    matlab(query_label={"a": {"b": CELLS}}),
]


@fuzz(mutated(*MATS))
def test_mutated_mat(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "pytorch_result.mat"
    path.write_bytes(data)
    (tmp_path / "multi_query.mat").write_bytes(data)
    check(attempt("features: mat", lambda: read_features(path)))
    attempt("features: mat", lambda: read_multi_query(path))


@fuzz(
    st.dictionaries(
        st.sampled_from(["query_f", "query_label", "gallery_cam", "x"]),
        st.one_of(ARRAYS, st.just(CELLS), texts().filter(lambda t: len(t) < 99 and t.isascii())),
        max_size=3,
    ),
    st.sampled_from(("pytorch_result.mat", "a_query.mat", "a_detected.mat")),
)
def test_other_variables_in_a_mat(tmp_path: Path, changes: dict[str, Any], name: str) -> None:
    try:
        data = matlab(**changes) if name == "pytorch_result.mat" else matlab(**changes)[:]
    except (TypeError, ValueError, NotImplementedError):
        return  # no such file can be written
    (tmp_path / name).write_bytes(data)
    check(attempt("features: mat variables", lambda: read_features(tmp_path / name)))


FILELIST = np.array([["a.png"], ["b.png"], ["c.png"], ["d.png"]], dtype=object)
PROTOCOL = {
    "filelist": FILELIST,
    "labels": LABELS,
    "camId": np.array([1, 1, 2, 2]),
    "train_idx": [1, 3],
    "query_idx": [2],
    "gallery_idx": [4],
}


@fuzz(
    st.one_of(
        st.dictionaries(
            st.sampled_from(sorted(PROTOCOL)),
            st.one_of(
                ARRAYS,
                st.just(CELLS),
                st.just([0, 99]),
                st.just(np.array([["../../x"], ["/etc/passwd"], ["b.png"], [""]], dtype=object)),
            ),
            max_size=2,
        ),
        mutated(matlab()),
    ),
    share=0.5,
)
def test_the_protocol_of_cuhk03(tmp_path: Path, changes: Any) -> None:
    images = tmp_path / "cuhk03_detected"
    images.mkdir(exist_ok=True)
    for name in "abcd":
        (images / f"{name}.png").touch()
    path = tmp_path / "cuhk03_new_protocol_config_detected.mat"
    if isinstance(changes, bytes):
        path.write_bytes(changes)
    else:
        try:
            scipy.io.savemat(path, {**PROTOCOL, **changes})
        except (TypeError, ValueError):
            return  # no such file can be written
    split = attempt(
        "features: protocol of cuhk03", lambda: read_cuhk03np_detected(tmp_path, strict=False, cache=tmp_path)
    )
    if split is not None:
        assert all(
            images in Path(image.path).resolve().parents for image in (*split.train, *split.query, *split.gallery)
        )
