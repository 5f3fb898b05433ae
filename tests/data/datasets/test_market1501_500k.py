from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reid.data import DATASETS, split_table
from reid.data.datasets import market1501_500k as module
from reid.errors import InputError
from reid.io import archive

read = DATASETS["market1501_500k"]
NAMES = ("0000_c1s1_000002_00.jpg", "0000_c6s2_000001_00.jpg", "anything.png")


@pytest.fixture
def root(tmp_path: Path, make_folder: Callable[..., Path]) -> Path:
    make_folder(tmp_path / "data" / "Market-1501-v15.09.15")
    return tmp_path / "data"


def add(folder: Path, make_image: Callable[..., None]) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        make_image(folder / name, number)
    (folder / "Thumbs.db").write_bytes(b"x")


@pytest.mark.parametrize("place", ["images", "distractors", "Market-1501-v15.09.15/distractors_500k"])
def test_distractors_follow_the_gallery(root: Path, make_image: Callable[..., None], place: str) -> None:
    add(root / place, make_image)
    split = read(root, strict=False, cache=root / "cache")
    market = DATASETS["market1501"](root, strict=False, cache=root / "cache")
    assert split.name == "market1501_500k"
    assert (split.train, split.query) == (market.train, market.query)
    assert split.gallery[:5] == market.gallery
    added = split.gallery[5:]
    assert [Path(image.path).name for image in added] == sorted(NAMES)
    # Market's highest camera here is 3.
    assert {(image.identity, image.camera) for image in added} == {(0, 4)}
    assert "(1 junk, 4 distractors)" in split_table(split)


def test_the_zip_is_unpacked(root: Path, make_image: Callable[..., None], make_zip: Callable[..., Path]) -> None:
    add(root / "elsewhere" / "images", make_image)
    make_zip(root / "distractors_500k.zip", root / "elsewhere" / "images")
    for path in (root / "elsewhere" / "images").iterdir():
        path.unlink()
    split = read(root, strict=False, cache=root / "cache")
    assert len(split.gallery) == 5 + 3
    assert all(Path(image.path).is_file() for image in split.gallery)


def test_beside_the_zip_of_market(root: Path, make_image: Callable[..., None], make_zip: Callable[..., Path]) -> None:
    add(root / "images", make_image)
    market = make_zip(root / "Market-1501-v15.09.15.zip", root / "Market-1501-v15.09.15")
    split = read(market, strict=False, cache=root / "cache")
    assert len(split.gallery) == 5 + 3


def test_the_official_number_is_required(
    root: Path, make_image: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(root / "images", make_image)
    with pytest.raises(InputError, match="12,936"):  # Market-1501's own counts come first
        read(root, cache=root / "cache")
    official = module.read_dataset
    monkeypatch.setattr(module, "read_dataset", lambda *a, **k: official(*a, **{**k, "strict": False}))
    with pytest.raises(InputError, match=r"images contains 3 distractors, not 500,000; DATASETS.STRICT False"):
        read(root, cache=root / "cache")
    monkeypatch.setattr(module, "IMAGES", 3)
    assert len(read(root, cache=root / "cache").gallery) == 8


def test_no_distractors_anywhere(root: Path) -> None:
    with pytest.raises(InputError, match=r"no distractors .* nor distractors_500k.zip"):
        read(root, strict=False, cache=root / "cache")
    (root / "images").mkdir()
    with pytest.raises(InputError, match="contains no image"):
        read(root, strict=False, cache=root / "cache")


def test_a_zip_of_half_a_million_files_is_within_the_limit() -> None:
    assert archive.MAX_ENTRIES > module.IMAGES + 1
