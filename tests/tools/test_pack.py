"""A checkpoint packed for handing on, and the model that comes with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from called import Tool
from untrained import save_untrained

from reid import Embedder
from reid.config.loading import parse_config
from reid.decorrelation import correlation_metric
from reid.inference.embedder import DEMO
from reid.io.checkpoint import load_checkpoint, save_checkpoint

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3), dtype=np.uint8)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    pairs = ["MODEL.BACKBONE", "small_convolution", "MODEL.WEIGHTS", "none", "INPUT.SIZE", "[128, 64]"]
    config = parse_config("", [*pairs, "OUTPUT_DIR", "/home/somebody/runs", "DATASETS.ROOT", "/home/somebody/data"])
    return save_untrained(tmp_path / "trained.pth", config, classes=9, optimizer={"state": torch.ones(5)})


@pytest.mark.parametrize("options", [(), ("--no-classifier",)])
def test_the_same_network_without_the_places_it_was_trained_at(tool: Tool, trained: Path, options: tuple[str]) -> None:
    target = trained.with_name("packed.safetensors")
    assert "wrote" in tool("pack", trained, target, *options).ok().out
    ours, packed = (Embedder.load(path, device="cpu") for path in (trained, target))
    assert ours.model_id == packed.model_id
    assert np.array_equal(ours.embed(PICTURES), packed.embed(PICTURES))
    assert b"somebody" not in target.read_bytes()
    content = load_checkpoint(target)
    assert content["num_classes"] == (1 if options else 9) and "optimizer" not in content


def test_the_origin_of_the_weights_stays_without_their_folder(tool: Tool, trained: Path) -> None:
    content = load_checkpoint(trained)
    config = content["config"].replace("WEIGHTS: none", "WEIGHTS: /home/somebody/pre.pth")
    assert config != content["config"]
    save_checkpoint(trained, {**content, "config": config})
    target = trained.with_name("packed.safetensors")
    tool("pack", trained, target).ok()
    assert parse_config(load_checkpoint(target)["config"]).MODEL.WEIGHTS == "pre.pth"
    assert b"somebody" not in target.read_bytes()


def test_what_is_refused(tool: Tool, trained: Path) -> None:
    target = trained.with_name("packed.safetensors")
    target.write_text("mine")
    for arguments, message in (
        ((trained, target), "already exists"),
        ((trained, trained.with_name("packed.pth")), "must be a .safetensors file"),
        ((trained.with_name("none.pth"), trained.with_name("new.safetensors")), "no such"),
    ):
        ended = tool("pack", *arguments).fails(message)
        assert len(ended.err.strip().splitlines()) == 1
    assert target.read_text() == "mine"
    tool("pack", trained, target, "--force").ok()
    assert Embedder.load(target, device="cpu").dim


def test_the_demo_model() -> None:
    embedder = Embedder.load("demo", device="cpu")
    assert DEMO.stat().st_size < 3_000_000
    rows = embedder.embed([image.repeat(2, axis=0) for image in PICTURES])
    assert rows.shape == (3, embedder.dim) and np.allclose(np.linalg.norm(rows, axis=1), 1)
    # It ended with a Restraint, in which the decorrelated Eigenlayer stays as it is.
    assert correlation_metric(embedder.network.eigenlayer.vectors) == pytest.approx(1, abs=1e-4)
    assert embedder.config.MODEL.WEIGHTS == "none" and embedder.config.DATASETS.NAME == "synthetic"
