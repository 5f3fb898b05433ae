"""Features that `svdnet extract` writes in shards: scores from them, and indexes that load them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from called import Tool
from fault.kills import TINY
from untrained import save_untrained

from reid import Embedder
from reid.commands import run
from reid.config.loading import load_config
from reid.search.extracted import extracted_features

CONFIG = Path(__file__).parents[2] / "configs" / "demo_synthetic.yaml"


@dataclass(frozen=True)
class Extracted:
    """A checkpoint, a folder of crops, and the shards of their features."""

    weights: Path
    crops: Path
    shards: Path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_network(tmp_path / "network.pth")


def save_network(path: Path) -> Path:
    """Write an untrained network with the configuration of the tiny run."""
    return save_untrained(path, load_config(CONFIG, [*TINY]), classes=8)


def test_features_in_shards_score_as_the_checkpoint(tool: Tool, tmp_path: Path, checkpoint: Path) -> None:
    folder = tmp_path / "features"
    asked = ("extract", "--weights", checkpoint, "--output", folder, "--shard", "20", "TEST.FLIP", "True")
    ended = tool(*asked).ok()
    assert "gallery: " in ended.out and "0 of them extracted now" not in ended.out
    assert tool(*asked).ok().out.count(" 0 of them extracted now") == 2
    tool("evaluate", "--features", folder / "input", "--output", tmp_path / "a").ok()
    tool("evaluate", "--weights", checkpoint, "--output", tmp_path / "b", "TEST.FLIP", "True").ok()
    shards, expected = (json.loads((tmp_path / name / "evaluation.json").read_text())["scores"] for name in "ab")
    kinds = ("rank1", "rank5", "mAP", "mINP")
    assert [shards[0][kind] for kind in kinds] == pytest.approx(
        [next(s for s in expected if s["feature"] == "input" and s["flip"])[kind] for kind in kinds], abs=0.02
    )
    tool(*asked, "INPUT.SIZE", "[128, 64]", "INPUT.MEAN", "[0.4, 0.4, 0.4]").fails("differ in input")
    assert tool("extract", "--weights", checkpoint, "--output", folder, "--shard", "0").code == 2


@pytest.fixture(scope="module")
def extracted(drawn_market: Path, tmp_path_factory: pytest.TempPathFactory) -> Extracted:
    """Shards of a gallery; `tests/evaluation` shows that those of several processes are the same."""
    folder = tmp_path_factory.mktemp("extracted")
    weights = save_network(folder / "network.pth")
    options = ("--part", "gallery", "--shard", "20", "--output", folder / "features", "--config-file", CONFIG)
    data = ("DATASETS.NAME", "market1501", "DATASETS.ROOT", drawn_market, "DATASETS.STRICT", "False")
    arguments = ["--weights", weights, *options, *data, "DATASETS.CACHE", folder / "cache", "TEST.FLIP", "True"]
    assert run("extract", [str(argument) for argument in arguments]) == 0
    [crops] = drawn_market.rglob("bounding_box_test")
    return Extracted(weights, crops, folder / "features" / "input" / "gallery")


@pytest.mark.parametrize("store", ["folder", "milvus"])
def test_shards_load_into_an_index(
    tool: Tool,
    extracted: Extracted,
    store: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As embedding the images would, also after an interruption, and without the network."""
    assert len(list(extracted.shards.glob("*.npy"))) > 2
    milvus = () if store == "folder" else ("--store", request.getfixturevalue("milvus_store"))
    place = ("--index", tmp_path / "index") if store == "folder" else ("--index", "loaded", *milvus)
    model = ("--weights", extracted.weights, "--feature", "input", "--flip", "--pattern", "market1501")
    load = ("index", extracted.crops, *place, *model, "--features", extracted.shards)
    monkeypatch.setattr("reid.search.gallery.update._BATCH_SIZE", 16)
    with monkeypatch.context() as patch:
        patch.setattr("reid.commands.index.extracted_features", interrupting_after(2))
        ended = tool(*load)
    assert ended.code == 130 and "embedded images are in the index; resume with: " in ended.err, ended.err
    embed, embedded = Embedder.embed, list[str]()

    def count(self: Embedder, images: Any, **options: Any) -> Any:
        embedded.extend(images)
        return embed(self, images, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed", count)
        ended = tool(*load)
    images = len(list(extracted.crops.glob("*.jpg")))
    assert ended.code == 0 and f" {images} images ({images - 32} new, 32 unchanged)" in ended.out, ended.out + ended.err
    assert 0 < len(embedded) <= 16  # to compare
    tool("index", extracted.crops, *place, "--check").ok()

    query = next(extracted.crops.glob("0*_c1*.jpg"))
    options = ("--camera", "2", "3", "--top", "1000", "--json", tmp_path / "found.json")
    tool("search", query, *place, *options).ok()
    found = json.loads((tmp_path / "found.json").read_text())["queries"][0]["answers"]
    paths = [path for path in sorted(extracted.crops.glob("*.jpg")) if "_c2" in path.name or "_c3" in path.name]
    rows = Embedder.load(extracted.weights, feature="input", flip=True).embed([query, *paths])
    expected = dict(zip([path.name for path in paths], np.linalg.norm(rows[1:] - rows[0], axis=1), strict=True))
    assert {answer["path"]: answer["distance"] for answer in found} == pytest.approx(expected, abs=1e-3)
    for answer in found:
        identity, camera = answer["path"].split("_")[:2]
        assert int(answer["identity"]) == int(identity) and camera.startswith(f"c{answer['camera']}s")


def interrupting_after(calls: int) -> Callable[..., Any]:
    """Features that are read until, at a later call, Ctrl-C is pressed."""
    left = iter(range(calls))

    def read(*arguments: Any) -> Any:
        rows_of = extracted_features(*arguments)

        def rows(paths: Any) -> Any:
            if len(paths) > 1 and next(left, None) is None:
                signal.raise_signal(signal.SIGINT)
            return rows_of(paths)

        return rows

    return read


def test_shards_of_another_model_are_refused(tool: Tool, extracted: Extracted, tmp_path: Path) -> None:
    options = ("index", extracted.crops, "--index", tmp_path / "index", "--weights", extracted.weights)
    refused = tool(*options, "--features", extracted.shards, "--feature", "input")  # without --flip
    refused.fails("is not that of the model; extract with the same weights")
    assert not (tmp_path / "index").exists()
