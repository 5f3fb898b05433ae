"""Indexing and searching from the command line with a small network, and messages for invalid input."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from called import Tool
from html_page import Page
from PIL import Image
from untrained import save_untrained

from reid import Embedder
from reid.config.loading import parse_config
from reid.errors import InputError
from reid.inference.calibration import Calibration, Curve, Threshold
from reid.io.checkpoint import load_checkpoint, save_checkpoint
from reid.search.gallery import Gallery, read_snapshot, shard_files

PAIRS = [
    *("MODEL.BACKBONE", "small_convolution", "MODEL.WEIGHTS", "none", "INPUT.SIZE", "[128, 64]"),
    *("MODEL.EIGENLAYER.DIM", "16"),
]


def checkpoint(path: Path, seed: int = 0) -> Path:
    return save_untrained(path, parse_config("", PAIRS), seed=seed, normed=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("weights") / "model.pth")


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "crops" / f"{number // 4:04d}" / f"c{number % 2 + 1}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(random.integers(0, 256, (4, 3, 3), dtype=np.uint8))
        small.resize((32, 64), Image.Resampling.BICUBIC).save(path)
    return tmp_path / "crops"


@pytest.fixture
def index(tool: Tool, crops: Path, tmp_path: Path, weights: Path) -> Path:
    pattern = ("--pattern", "{identity}/c{camera}_{time}")
    ended = tool("index", crops, "--index", tmp_path / "i", "--weights", weights, *pattern).ok()
    assert re.search(r"12 images \(12 new\); 12 embedded", ended.out)
    return tmp_path / "i"


def answers(path: Path) -> list[list[dict[str, Any]]]:
    return [query["answers"] for query in json.loads(path.read_text())["queries"]]


def test_search_equals_plain_distances(tool: Tool, index: Path, crops: Path, tmp_path: Path, weights: Path) -> None:
    paths = sorted(crops.rglob("*.png"))
    values = Embedder.load(weights, device="cpu").embed(paths).astype(np.float64)
    ended = tool("search", paths[3], paths[8], "--index", index, "--top", 5, "--json", tmp_path / "a.json").ok()
    for query, found in zip((3, 8), answers(tmp_path / "a.json"), strict=True):
        distances = np.sqrt(((values[query] - values) ** 2).sum(axis=1))
        order = np.argsort(distances, kind="stable")[:5]
        assert [Path(answer["file"]) for answer in found] == [paths[i] for i in order]
        np.testing.assert_allclose([answer["distance"] for answer in found], distances[order], atol=1e-5)
        assert all(answer["probability"] is None for answer in found)
    assert "not calibrated" in ended.out and "0000/c2_3.png" in ended.out
    assert re.search(r"rank +distance +camera +identity +time +path", ended.out)


def test_filters_own_file_and_mean(tool: Tool, index: Path, crops: Path, tmp_path: Path, weights: Path) -> None:
    one, other = sorted(crops.rglob("*.png"))[:2]
    options = ("--index", index, "--json", tmp_path / "a.json", "--top", "12")
    tool("search", one, *options, "--camera", "2", "--time", "4..9").ok()
    (found,) = answers(tmp_path / "a.json")
    assert {a["path"] for a in found} == {"0001/c2_5.png", "0001/c2_7.png", "0002/c2_9.png"}
    tool("search", one, *options, "--exclude-same-file").ok()
    (found,) = answers(tmp_path / "a.json")
    assert len(found) == 11 and one.name not in {Path(a["file"]).name for a in found}
    tool("search", one, other, *options, "--mean").ok()
    (found,) = answers(tmp_path / "a.json")
    paths = sorted(crops.rglob("*.png"))
    values = Embedder.load(weights, device="cpu").embed(paths).astype(np.float64)
    mean = values[0] + values[1]
    distances = np.sqrt(((values - mean / np.linalg.norm(mean)) ** 2).sum(axis=1))
    files, expected = [Path(a["file"]) for a in found], [paths[i] for i in np.argsort(distances, kind="stable")]
    assert {*files[:2]} == {one, other} and files[2:] == expected[2:]  # the two are equally far from their mean
    np.testing.assert_allclose([a["distance"] for a in found], np.sort(distances), atol=1e-5)
    for option, message in (
        (("--camera", "9"), "no image of camera 9; known are 1, 2"),
        (("--time", "9"), "--time '9': must be FROM..TO"),
        (("--time", "9..4"), "ends before it starts"),
        (("--prior", "0.1"), "needs a calibrated model"),
        (("--faiss-beyond", "1"), "has no FAISS index"),
    ):
        ended = tool("search", one, *options, *option)
        assert ended.code == 2 and re.search(message, ended.err), ended.err
        assert ended.err.count("\n") == 1


def test_the_page_holds_its_pictures(tool: Tool, index: Path, crops: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    (crops / "0000" / "c2_1.png").write_bytes(b"corrupted")
    query = next(crops.rglob("c1_4.png"))
    tool("search", query, "--index", index, "--top", "12", "--output", tmp_path / "page.html").ok()
    page = Page(tmp_path / "page.html")
    images = [attributes["href"] or "" for tag, attributes in page.tags if tag == "image"]
    assert len(images) == 11 and all(source.startswith("data:image/jpeg;base64,") for source in images)
    assert "1 image could not be read and has an empty frame" in page.source
    labels = [
        attributes["aria-label"] or "" for tag, attributes in page.tags if tag == "svg" and "aria-label" in attributes
    ]
    assert sum(label.startswith("rank ") for label in labels) == 12
    assert "http" not in page.source.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_probabilities_are_shown(tool: Tool, index: Path, crops: Path, tmp_path: Path, weights: Path) -> None:
    copy = tmp_path / "calibrated.pth"
    content = load_checkpoint(weights)
    model_id = Embedder.load(weights, device="cpu").model_id
    calibration = Calibration(
        model_id, "drawn", 10, 100, 5, (Threshold(0.01, 0.5, 0.4, 0.6, 0.9, 0.8, 1.0),), (), (),
        Curve("logistic", (10.0, -5.0), 0.1),
    )  # fmt: skip
    save_checkpoint(copy, {**content, "calibration": calibration.to_plain()})
    query = next(crops.rglob("*.png"))
    options = ("--index", index, "--json", tmp_path / "a.json")
    ended = tool("search", query, *options, "--weights", copy).ok()
    (found,) = answers(tmp_path / "a.json")
    for answer in found:
        assert answer["probability"] == pytest.approx(1 / (1 + np.exp(10 * answer["distance"] - 5)))
    assert "calibrated on drawn" in ended.out and "up to 0.500: 0.01" in ended.out and "probability" in ended.out
    assert "a share of 0.1 of the compared pairs" in ended.out
    tool("search", query, *options, "--weights", copy, "--prior", "0.5").ok()
    odds = found[1]["probability"] / (1 - found[1]["probability"]) * 9
    assert answers(tmp_path / "a.json")[0][1]["probability"] == pytest.approx(odds / (1 + odds))


def test_a_second_run_reuses_the_settings(tool: Tool, index: Path, crops: Path, tmp_path: Path, weights: Path) -> None:
    (crops / "0002" / "c2_99.png").write_bytes((crops / "0000" / "c1_0.png").read_bytes())
    (crops / "0002" / "odd.png").write_bytes(b"no image")
    ended = tool("index", crops, "--index", index).ok()
    assert re.search(r"13 images \(1 new, 12 unchanged, 1 unreadable\); 0 embedded", ended.out), ended.out
    assert "unreadable: 0002/odd.png: " in ended.out
    assert tool("index", crops, "--index", index, "--broken", "error").code == 2
    # Another model, recognized by its id.
    ended = tool("index", crops, "--index", index, "--weights", checkpoint(tmp_path / "other.pth", seed=1))
    ids = [Embedder.load(path, device="cpu").model_id for path in (weights, tmp_path / "other.pth")]
    assert ended.code == 2 and all(model_id in ended.err for model_id in ids)
    assert tool("index", crops, "--index", index, "--feature", "output").code == 2
    ended = tool("search", crops / "0000" / "c1_0.png", "--index", index, "--weights", tmp_path / "other.pth")
    assert ended.code == 2 and all(model_id in ended.err for model_id in ids)
    # Another folder.
    crops.rename(tmp_path / "moved")
    tool("index", tmp_path / "moved", "--index", index).fails("add --moved")
    tool("index", tmp_path / "moved", "--index", index, "--moved").ok()
    assert len(read_snapshot(index).crops) == 13


def test_removing_compacting_checking(tool: Tool, index: Path, crops: Path) -> None:
    ended = tool("index", crops, "--index", index, "--remove", "0001/*", "0002/c1_8.png")
    assert (ended.code, ended.out) == (0, "5 images removed\n")
    # As after an error while compacting.
    ended = tool("index", crops, "--index", index, "--remove", "0001/*", "--check").ok()
    assert ended.out.startswith("0 images removed\n")
    ended = tool("index", crops, "--index", index)
    assert "7 images (7 unchanged, 5 removed before)" in ended.out
    ended = tool("index", crops, "--index", index, "--compact", "--check")
    assert "5 feature rows without an image dropped" in ended.out and "match their checksums" in ended.out
    ended = tool("index", crops, "--index", index, "--restore", "0001/*")
    assert ended.out == "4 images restored\n"
    assert "4 embedded" in tool("index", crops, "--index", index).out
    tool("index", crops.parent / "typo", "--index", index, "--remove", "*").fails("is the index of")
    ended = tool("index", crops, "--index", index, "--compact", "--pattern", "x", "--reread")
    ended.fails("--pattern, --reread: of an update of the index")
    tool("index", crops, "--index", index, "--remove", "nothing*").fails("no image matches nothing*")
    path = next((index / "features").iterdir())
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes(data)
    tool("index", crops, "--index", index, "--check").fails("do not match their checksums")


def test_faiss_beyond_a_size(
    tool: Tool, index: Path, crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    assert "recall" not in tool("index", crops, "--index", index, "--faiss-beyond", "12").out
    ended = tool("index", crops, "--index", index, "--faiss-beyond", "5").ok()
    assert re.search(r"recall@10 1\.0000 on 12 rows; built in", ended.out), ended.out
    query = next(crops.rglob("*.png"))
    options = ("--index", index, "--json", tmp_path / "a.json")
    assert "recall@10 1.0000" in tool("search", query, *options).out
    with_faiss = answers(tmp_path / "a.json")
    assert "searched, exact" in tool("search", query, *options, "--faiss-beyond", "12").out
    assert answers(tmp_path / "a.json") == with_faiss
    # Outdated: reported, searched exactly, and rebuilt by the next indexing.
    with Gallery.open(index) as gallery:
        gallery.set_removed(["0001/c1_4.png"], removed=True)
    ended = tool("search", query, *options).ok()
    assert "outdated" in ended.out and "searched, exact" in ended.out
    tool("search", query, *options, "--faiss-beyond", "2").fails("outdated")
    with Gallery.open(index) as gallery:
        gallery.set_metadata(faiss_beyond=3)
    assert "recall@10" in tool("index", crops, "--index", index).out
    assert "recall@10" in tool("search", query, *options).out
    monkeypatch.setattr("reid.search.gallery.faiss_file.LOW_RECALL", 1.1)
    with Gallery.open(index) as gallery:
        gallery.set_removed(["0001/c1_4.png"], removed=False)
    assert "searches stay exact unless --faiss-beyond" in tool("index", crops, "--index", index).out
    ended = tool("search", query, *options)
    assert "the FAISS index misses too many" in ended.out and "searched, exact" in ended.out
    assert "recall@10" in tool("search", query, *options, "--faiss-beyond", "3").out


def test_codes_say_what_they_need(
    tool: Tool, crops: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reid.search.gallery.code_files.CODED_ROWS", 12)
    monkeypatch.setattr("reid.search.gallery.code_files._UNCODED_ROWS", 0)
    for found, advice in ((None, True), (len, False)):
        monkeypatch.setattr("reid.commands.index.integer_products", lambda found=found: found)
        ended = tool("index", crops, "--index", tmp_path / str(advice), "--weights", weights).ok()
        assert "8-bit codes of 12 images written in" in ended.out, ended.out + ended.err
        assert ("which needs NumKong to use them: pip install" in ended.out) == advice


def test_invalid_folders(
    tool: Tool, crops: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    options = ("--weights", weights, "--index", tmp_path / "i")
    for folder, message in (
        (tmp_path / "empty", "no image (.jpg, .jpeg, .png, .bmp, .webp) in this folder"),
        (tmp_path / "missing", "no such folder of crops"),
        (weights, "a file, not a folder of crops"),
    ):
        tool("index", folder, *options).fails(message, alone=True)
        assert not (tmp_path / "i").exists()
    assert "a new index needs --weights" in tool("index", crops, "--index", tmp_path / "i").err
    tool("search", crops / "0000" / "c1_0.png", "--index", tmp_path / "i").fails("no such index")
    with Gallery.create(tmp_path / "j", model_id="m", dim=16):
        tool("index", crops, "--index", tmp_path / "j", "--check").fails("is writing to this index", alone=True)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(shard_files.os, "fsync", full)
        ended = tool("index", crops, *options)
    assert ended.code == 2 and ended.err.startswith("error: the disk is full: ") and ended.err.count("\n") == 1
    tool("index", crops, *options).ok()
    assert len(read_snapshot(tmp_path / "i").crops) == 12


def test_ctrl_c_keeps_what_is_embedded(
    tool: Tool, crops: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reid.search.gallery.update._BATCH_SIZE", 3)
    embed, calls = Embedder.embed, 0

    def interrupted(self: Embedder, paths: Any) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return embed(self, paths)

    monkeypatch.setattr(Embedder, "embed", interrupted)
    ended = tool("index", crops, "--index", tmp_path / "i", "--weights", weights)
    assert ended.code == 130 and f"svdnet index {crops} --index" in ended.err
    assert len(read_snapshot(tmp_path / "i").crops) == 6
    assert "12 images (6 new, 6 unchanged); 6 embedded" in tool("index", crops, "--index", tmp_path / "i").out


def test_what_another_process_adds_meanwhile_stays(
    tool: Tool, index: Path, crops: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Embedder.load

    def add_and_load(*arguments: Any, **options: Any) -> Embedder:
        # While this process loads its model, an image appears, and nobody else can index it.
        (crops / "0002" / "c2_99.png").write_bytes((crops / "0000" / "c1_0.png").read_bytes())
        with pytest.raises(InputError, match="is writing to this index"):
            Gallery.open(index)
        return load(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Embedder, "load", add_and_load)
        assert "13 images (1 new" in tool("index", crops, "--index", index).out


def test_an_index_made_from_python(tool: Tool, index: Path, crops: Path, tmp_path: Path, weights: Path) -> None:
    metadata = read_snapshot(index).metadata
    Gallery.create(tmp_path / "j", model_id=metadata["model_id"], dim=metadata["dim"]).close()
    tool("index", crops, "--index", tmp_path / "j").fails("an index that does not name its model needs --weights")
    pytest.importorskip("uvicorn")
    tool("serve", "--index", tmp_path / "j", "--port", "0").fails("does not say its root and weights", alone=True)
    assert "12 new" in tool("index", crops, "--index", tmp_path / "j", "--weights", weights).out
    tool("search", next(crops.rglob("*.png")), "--index", tmp_path / "j").ok()
