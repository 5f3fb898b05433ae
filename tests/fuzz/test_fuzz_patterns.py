"""DATASETS.PATTERN and the names of image files."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from fuzz.harness import attempt, fuzz, texts
from hypothesis import strategies as st

from reid.data.datasets.cuhk01 import read_cuhk01
from reid.data.datasets.dukemtmcreid import read_dukemtmcreid
from reid.data.datasets.folder import read_tree
from reid.data.datasets.layout import split_table
from reid.data.datasets.market1501 import read_market1501
from reid.data.datasets.msmt17 import read_msmt17
from reid.data.datasets.pattern import compile_pattern

PIECES = [
    *(
        "{identity}",
        "{camera}",
        "{identity:4}",
        "{camera:1}",
        "{camera/2}",
        "{",
        "}",
        "*",
        "**/",
        "/",
        "_",
        "cam",
        "c",
        "s1_",
        "a",
    ),
    *("{identity:0}", "{identity:999}", "{x}", "(", ")", "(?P<x>", "[", "\\", "+", "?", "|", ".jpg", "\n", "\0", "$"),
]
PATTERNS = st.one_of(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), texts())
PATHS = ["0001_c1s1_000151_01", "a/b/c/0001_c2", "1" * 250, "a_" * 120, "/".join("ab" * 40), "cam1/7_x", "", "_" * 200]


@fuzz(PATTERNS, st.one_of(st.sampled_from(PATHS), texts()))
def test_patterns(pattern: str, path: str) -> None:
    def match() -> None:
        expression = compile_pattern(pattern)
        found = expression.fullmatch(path)
        assert found is None or "identity" in found

    attempt("patterns", match)


NAMES = [
    *("0001_c1s1_000151_01.jpg", "0001_c2s1_000301_01.jpg", "0002_c1s1_000451_03.jpg", "-1_c1s1_000401_03.jpg"),
    *("0003_c2_f0000001.jpg", "0001001.png", "0001003.png", "0000_000_01_0303morning_0015_0.jpg", "7.png", "x.JPEG"),
    *("٠٠٠١_c1s1_1_1.jpg", "0001_c0s1_1_1.jpg", "99999999999_c1s1_1_1.jpg", "0001_c99999s1_1_1.jpg", ".hidden.jpg"),
    *(
        "a\nb_c1.jpg",
        "\x1b[31m_c1.jpg",
        "<script>.jpg",
        "$x$_c1.jpg",
        " .jpg",
        "~.jpg",
        "-rf.jpg",
        "%s_c%d.jpg",
        "x" * 250 + ".jpg",
    ),
]


def names() -> st.SearchStrategy[list[str]]:
    written = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=30)
    other = written.map(lambda text: f"{text}.jpg").filter(lambda name: len(name.encode()) < 250)
    broken = st.binary(min_size=1, max_size=5).map(lambda raw: raw.replace(b"/", b"").replace(b"\0", b"") + b".jpg")
    return st.lists(
        st.one_of(st.sampled_from(NAMES), other, broken.map(lambda raw: raw.decode("utf-8", "surrogateescape"))),
        max_size=2,
    )


READERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "market1501": (read_market1501, ("bounding_box_train", "query", "bounding_box_test")),
    "dukemtmcreid": (read_dukemtmcreid, ("bounding_box_train", "query", "bounding_box_test")),
    "cuhk01": (read_cuhk01, ("campus",)),
    "folder in parts": (partial(read_tree, pattern="{identity}_c{camera}*"), ("train", "query", "gallery")),
    "folder": (partial(read_tree, pattern="**/{identity}_c{camera}*"), ("a", "a/b", "c")),
    "folder without cameras": (partial(read_tree, pattern="**/{identity}_*"), ("a", "b")),
}


@fuzz(st.sampled_from(sorted(READERS)), st.lists(names(), min_size=3, max_size=3), st.booleans())
def test_names_of_images(tmp_path: Path, dataset: str, files: list[list[str]], whole: bool) -> None:
    read, folders = READERS[dataset]
    root = tmp_path / "root"
    shutil.rmtree(root, ignore_errors=True)
    for folder, here in zip(folders, files, strict=False):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in (*here, *(NAMES[:3] if whole else ())):
            (root / folder / name).touch()
    split = attempt(f"names: {dataset}", lambda: read(root, strict=False, cache=tmp_path / "cache"))
    if split is not None:
        attempt(f"names: {dataset}", lambda: split_table(split))
        for image in (*split.train, *split.query, *split.gallery):
            assert root in Path(image.path).resolve().parents and image.camera >= 1


LINES = ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_000_02_0303morning_0015_0.jpg 1"]
OTHER_LINES = [
    *LINES,
    "../../0000_000_01_x_0.jpg 1",
    "/etc/0000_000_01_x.jpg 0",
    "x",
    "0000_000_01_x.jpg 99999999999",
    "\ufeff",
]


@fuzz(st.lists(st.lists(st.one_of(st.sampled_from(OTHER_LINES), texts()), max_size=4), min_size=4, max_size=4))
def test_lists_of_names(tmp_path: Path, lists: list[list[str]]) -> None:
    for folder in ("train", "test"):
        for line in LINES:
            path = tmp_path / folder / line.split()[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for name, lines in zip(("train", "val", "query", "gallery"), lists, strict=True):
        (tmp_path / f"list_{name}.txt").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    attempt("names: msmt17", lambda: read_msmt17(tmp_path, strict=False, cache=tmp_path))
