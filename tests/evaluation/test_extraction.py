"""Features in shards: independent of the number of processes, never extracted twice, never mixed between networks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gloo_jobs
import numpy as np
import pytest
import torch
from gloo import together

from reid.errors import InputError
from reid.evaluation.extraction import ShardOptions, extract_shards, fingerprint
from reid.evaluation.features import extract, mean_features
from reid.io.feature_files import read_features, read_training_features
from reid.io.shards import Shards
from reid.model.network import ReidNetwork

COUNT, SHARD = 11, 3


def made(
    folder: Path,
    model: ReidNetwork | None = None,
    count: int = COUNT,
    *,
    shard: int = SHARD,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, int]:
    parts = {"query": gloo_jobs.gallery(4, 2), "gallery": gloo_jobs.gallery(count, 2)}
    settings = {"size": [16, 8]} if settings is None else settings
    return extract_shards(
        model or gloo_jobs.network(), parts, folder, ShardOptions(shard, **options), settings=settings
    )


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every shard by name, with inode and modification time."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*.npy")
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_is_read_as_features(tmp_path: Path) -> None:
    assert made(tmp_path, flip=True) == {"query": 2, "gallery": 4}
    model, images = gloo_jobs.network(), gloo_jobs.gallery(COUNT, 2)
    expected = extract(model, images), extract(model, images, mirror=True)
    for feature in ("input", "output"):
        query, gallery, name = read_features(tmp_path / feature)
        assert name == feature and isinstance(gallery.values, Shards) and query.values.shape[0] == 4
        both = mean_features(expected[0][feature], expected[1][feature])
        np.testing.assert_allclose(gallery.values[:], both.values, atol=1e-6)
        np.testing.assert_array_equal(gallery.identities, images.identities)
        np.testing.assert_array_equal(gallery.cameras, images.cameras)
        assert gallery.paths == tuple(images.paths)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    images = dataclasses.replace(
        gloo_jobs.gallery(2, 2), paths=["a\udcff.jpg", "é.jpg"]
    )  # as os.fsdecode names b"\xff"
    extract_shards(gloo_jobs.network(), {"query": images, "gallery": images}, tmp_path, ShardOptions(4), settings={})
    _, gallery, _ = read_features(tmp_path / "input")
    assert gallery.paths == tuple(images.paths)


def test_training_images_too(tmp_path: Path) -> None:
    parts = {"train": gloo_jobs.gallery(COUNT, 2)}
    model = gloo_jobs.network()
    extract_shards(model, parts, tmp_path, ShardOptions(4, features=("input",)), settings={})
    training, name = read_training_features(tmp_path / "input")
    assert name == "input" and not (tmp_path / "output").exists()
    np.testing.assert_allclose(training.values, extract(model, parts["train"])["input"].values, atol=1e-6)


def test_two_processes_make_what_one_makes_and_go_on_after_a_kill(tmp_path: Path) -> None:
    made(tmp_path / "one")
    survivor, victim = together(gloo_jobs.extracted, tmp_path / "out", str(tmp_path / "two"), COUNT, SHARD, 3)
    assert (survivor.code, victim.code) == (2, -9)
    before = files(tmp_path / "two")
    assert 0 < len(before) < len(files(tmp_path / "one"))
    # An incomplete part is not mistaken for a complete one.
    with pytest.raises(InputError, match="no labels next to it"):
        read_features(tmp_path / "two" / "input")
    ended = together(gloo_jobs.extracted, tmp_path / "out", str(tmp_path / "two"), COUNT, SHARD)
    assert [process.code for process in ended] == [0, 0], [process.told for process in ended]
    after = files(tmp_path / "two")
    # Only one feature of the interrupted shard was recorded, so both are extracted again.
    again = {name for name in before if after[name] != before[name]}
    assert again <= {"input/gallery/000003.npy", "output/gallery/000003.npy"}
    assert sum(sum(process.value.values()) for process in ended) == (len(after) - len(before.keys() - again)) // 2
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_nothing_is_made_twice_and_what_is_broken_is_made_again(tmp_path: Path) -> None:
    made(tmp_path)
    before, whole = files(tmp_path), contents(tmp_path)
    assert made(tmp_path) == {"query": 0, "gallery": 0} and files(tmp_path) == before
    broken = tmp_path / "output" / "gallery" / "000002.npy"
    data = bytearray(broken.read_bytes())
    data[-1] ^= 1
    broken.write_bytes(data)
    (tmp_path / "input" / "query" / "000001.json").unlink()
    (tmp_path / "input" / "query" / "000000.json").write_text("[]")
    assert made(tmp_path) == {"query": 2, "gallery": 1}
    assert contents(tmp_path) == whole


def other_weight(model: ReidNetwork) -> None:
    weight = model.eigenlayer.weight.data
    weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": True}, "differ in weights;"),
        ({"count": 12}, "differ in images of gallery;"),
        ({"shard": 4}, "differ in shard;"),
        ({"settings": {"size": [32, 8]}, "flip": True}, "differ in size, flip;"),
    ],
)
def test_shards_of_something_else_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    made(tmp_path)
    before = contents(tmp_path)
    if "model" in options:
        options = {"model": gloo_jobs.network()}
        other_weight(options["model"])
    with pytest.raises(InputError, match=message):
        made(tmp_path, **options)
    assert contents(tmp_path) == before


def test_a_corrupt_manifest_is_an_error(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "extraction.json").write_text("{")
    with pytest.raises(InputError, match=r"extraction\.json: corrupt"):
        made(tmp_path)


def test_shards_on_another_host_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid.evaluation.extraction.get_world_size", lambda: 2)
    with pytest.raises(InputError, match=r"1 of 2 shards are missing, first number 1; .*another host"):
        made(tmp_path)


def test_the_fingerprint_is_of_every_bit() -> None:
    model = gloo_jobs.network()
    before = fingerprint(model)
    assert before == fingerprint(gloo_jobs.network())
    model.backbone.bn1.running_mean[0] += 1e-7
    assert fingerprint(model) != before
