"""The synthetic dataset is generated once, read with the real readers, and generated again for another version."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from reid.data import DATASETS
from reid.data.datasets import synthetic
from reid.data.datasets.synthetic import read_synthetic
from reid.errors import InputError


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("synthetic-cache")


@pytest.mark.parametrize(("layout", "cameras"), [("market", 4), ("duke", 8)])
def test_both_layouts_are_generated_once_and_read(cache, layout, cameras):
    options = {"cache": cache, "size": "tiny", "layout": layout, "seed": 3}
    split = DATASETS["synthetic"](Path("ignored"), **options)
    assert split.name == f"synthetic-{layout}-tiny-seed3"
    assert {image.camera for image in split.gallery} == set(range(1, cameras + 1))
    time = Path(split.train[0].path).stat().st_mtime_ns
    assert DATASETS["synthetic"](Path("ignored"), **options) == split
    assert Path(split.train[0].path).stat().st_mtime_ns == time


@pytest.mark.parametrize("emptied", [True, False])
def test_a_lost_or_emptied_image_is_drawn_again(cache, emptied):
    options = {"cache": cache, "size": "tiny", "layout": "market", "seed": 3}
    split = read_synthetic(Path("ignored"), **options)
    lost = Path(split.query[0].path)
    content = lost.read_bytes()
    lost.write_bytes(b"") if emptied else lost.unlink()
    assert read_synthetic(Path("ignored"), **options) == split
    assert lost.read_bytes() == content


def test_a_lost_image_of_a_dataset_of_an_older_version_is_noticed(cache):
    options = {"cache": cache, "size": "tiny", "layout": "market", "seed": 3}
    split = read_synthetic(Path("ignored"), **options)
    metadata = cache / "synthetic-market-tiny-seed3" / "synthetic.json"
    content = json.loads(metadata.read_text(encoding="utf-8"))
    del content["files"]
    metadata.write_text(json.dumps(content), encoding="utf-8")
    assert read_synthetic(Path("ignored"), **options) == split
    Path(split.query[0].path).unlink()
    with pytest.raises(InputError, match=rf"query has {len(split.query) - 1} images, not {len(split.query)}"):
        read_synthetic(Path("ignored"), **options)
    assert len(read_synthetic(Path("ignored"), strict=False, **options).query) == len(split.query) - 1


@pytest.mark.parametrize("damage", ["older", "missing"])
def test_an_older_or_unfinished_dataset_is_replaced(cache, monkeypatch, damage):
    options = {"cache": cache, "size": "tiny", "layout": "duke", "seed": 3}
    read_synthetic(Path("ignored"), **options)
    metadata = cache / "synthetic-duke-tiny-seed3" / "synthetic.json"
    kept = metadata.read_text(encoding="utf-8")
    generated = []
    monkeypatch.setattr(
        "reid.data.datasets.synthetic.generate_dataset", lambda folder, **given: generated.append(folder)
    )
    if damage == "older":
        metadata.write_text(json.dumps({**json.loads(kept), "generator": "an older one"}), encoding="utf-8")
    else:
        metadata.unlink()
    with pytest.raises(InputError):  # the generator is replaced by a stub, so nothing is found afterwards
        read_synthetic(Path("ignored"), **options)
    assert generated == [metadata.parent] and not metadata.parent.exists()
    monkeypatch.undo()
    assert len(read_synthetic(Path("ignored"), **options).train) == 64


def test_an_unknown_layout_and_size_are_reported(tmp_path):
    with pytest.raises(InputError, match=r"unknown layout 'cuhk'.*market, duke"):
        read_synthetic(Path("ignored"), cache=tmp_path, size="tiny", layout="cuhk")
    with pytest.raises(InputError, match="huge"):
        read_synthetic(Path("ignored"), cache=tmp_path, size="huge")
    assert not list(tmp_path.iterdir())


def test_a_dataset_that_cannot_be_read_now_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_synthetic(Path(), cache=tmp_path, size="tiny")
    folder = tmp_path / "synthetic-market-tiny-seed0"
    before = (folder / "synthetic.json").stat().st_ino

    def fail(path: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(synthetic, "read_file", fail)
    with pytest.raises(OSError, match="Too many open files"):
        read_synthetic(Path(), cache=tmp_path, size="tiny")
    assert (folder / "synthetic.json").stat().st_ino == before
