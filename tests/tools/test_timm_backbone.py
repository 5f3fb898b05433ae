"""Runs with networks of timm by the commands, from training to an exported file."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from called import Tool
from small_experiment import timeless
from untrained import save_untrained

from reid import Embedder
from reid.config.loading import parse_config
from reid.data.images.decode import decode_image
from reid.data.loading.loaders import TrainLoader
from reid.io.checkpoint import load_checkpoint
from reid.ranking import normalize_rows

timm = pytest.importorskip("timm")
ROOT = Path(__file__).parents[2]
# Fewer blocks of the same kinds, and narrower ones: time goes by their number, in an export above all.
# tests/model/backbones/test_timm_trunk.py has the whole networks.
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)},
    "convnext_atto": {"depths": (1, 1, 1, 1)},
    "mobilenetv4_conv_small": {},
    "vit_tiny_patch16_224": {"depth": 2},
}
EXPORTED = ("convnext_atto", "mobilenetv4_conv_small", "vit_tiny_patch16_224")  # 6 s each; our ResNets have own tests
SMALL = (
    *("INPUT.SIZE", "[32, 32]", "INPUT.PAD", "1", "DATASETS.IDENTITIES", "0.5", "SOLVER.BATCH_SIZE", "8"),
    *("MODEL.EIGENLAYER.DIM", "8", "STEP0.EPOCHS", "1", "STEP0.WARMUP_EPOCHS", "0", "STEP0.LR", "[0.0002]"),
    *("RRI.MAX_ROUNDS", "0", "RRI.FINAL_RESTRAINT", "True", "RRI.CONTROL", "False", "ENGINE", "torch"),
)


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **options, **NETWORKS[name]))
    return request.param


def interrupted(epoch: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Ctrl-C while the first batch of an epoch is trained on."""

    def call(*arguments: Any, **options: Any) -> Iterator[Any]:
        for batch in epoch(*arguments, **options):
            signal.raise_signal(signal.SIGINT)
            yield batch

    return call


def test_from_training_to_embeddings(
    tool: Tool, quick: tuple[str, ...], network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*arguments: str | Path) -> str:
        return tool(*arguments).ok().out

    config: tuple[str | Path, ...] = ("--config-file", ROOT / "configs" / "demo_synthetic.yaml", *quick, *SMALL)
    train = ("train", *config, "MODEL.BACKBONE", f"timm:{network}", "OUTPUT_DIR")
    assert f"timm:{network}, from scratch" in call(*train, tmp_path / "whole")

    # Interrupted in the middle of an epoch, and resumed: bit by bit the same
    with monkeypatch.context() as patch:
        patch.setattr(TrainLoader, "epoch", interrupted(TrainLoader.epoch))
        ended = tool(*train, tmp_path / "run")
    assert ended.code == 130 and "--resume" in ended.err
    weights = tmp_path / "run" / "checkpoints" / "rri_last.pth"
    assert load_checkpoint(weights)["middle"]["sums"]["batches"] == 1
    call(*train, tmp_path / "run", "--resume")
    scores, expected = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("run", "whole"))
    assert timeless(scores) == timeless(expected)
    assert [row["stage"] for row in scores["rows"]] == ["step0", "decorrelate", "restraint"]
    last, whole, step0 = (
        load_checkpoint(tmp_path / file)["model"]
        for file in ("run/checkpoints/rri_last.pth", "whole/checkpoints/rri_last.pth", "run/checkpoints/rri_step0.pth")
    )
    assert last.keys() == whole.keys() and all(torch.equal(last[name], whole[name]) for name in last)
    assert [name for name in step0 if torch.equal(step0[name], last[name])] == []  # all of it is trained

    # The scores of the run, and embeddings as in its evaluation
    call("evaluate", "--weights", weights, "--output", tmp_path, "--save-features", "ENGINE", "torch")
    assert scores["final"] in json.loads((tmp_path / "evaluation.json").read_text())["scores"]
    with np.load(tmp_path / "features_input.npz") as saved:
        paths, rows = list(saved["query_paths"]), normalize_rows(saved["query_values"])
    assert np.ptp(rows, axis=0).max() > 0.01  # so short a training leaves them similar, but not equal
    embedder = Embedder.load(weights, device="cpu", engine="torch")
    np.testing.assert_allclose(embedder.embed(paths), rows, atol=1e-5)

    # Every layer is surveyed
    call("diagnose", "--weights", weights, "--output", tmp_path)
    survey = json.loads((tmp_path / "diagnosis.json").read_text())["survey"]
    assert {row["name"] for row in survey} == {n for n, v in last.items() if n.endswith("weight") and v.ndim > 1}

    if network in EXPORTED:
        onnxruntime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        call("export", "--weights", weights, "--output", tmp_path / "network.onnx", "--preprocessing", "inside")
        session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
        pixels = np.stack([decode_image(path, (32, 32)) for path in paths])
        np.testing.assert_allclose(session.run(None, {"images": pixels})[0], rows, atol=1e-5)


def test_a_missing_timm_is_named(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config("", ("MODEL.BACKBONE", "timm:test_vit", "MODEL.WEIGHTS", "none", "INPUT.SIZE", "[32, 32]"))
    weights = save_untrained(tmp_path / "vit.pth", config)
    tool("export", "--weights", weights, "--output", tmp_path / "vit.pt2").ok()
    monkeypatch.setitem(sys.modules, "timm", None)
    ended = tool("export", "--weights", weights, "--output", tmp_path / "again.pt2")
    ended.fails("timm:test_vit needs the library timm")
    assert len(ended.err.strip().splitlines()) == 1 and "timm" in ended.err.partition("pip install")[2]


def test_names_and_poolings_are_checked_before_anything_is_written(train: Tool, tmp_path: Path) -> None:
    for pairs, message in (
        (("MODEL.BACKBONE", "timm:resnet81"), "did you mean timm:resnet18"),
        (("MODEL.POOLING.NAME", "own"), "only for networks of timm"),
    ):
        ended = train(*pairs).fails(message)
        assert len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
