"""tools/export.py as a user calls it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from called import Tool
from PIL import Image

from reid import Embedder
from reid.config import build
from reid.config.loading import parse_config
from reid.decorrelation import correlation_metric
from reid.errors import install_command
from reid.inference.export.formats import METADATA_FILE
from reid.inference.export.verification import TOLERANCES
from reid.io.checkpoint import save_checkpoint

pytest.importorskip("jinja2")

SETTINGS = (
    *("MODEL.BACKBONE", "small_convolution", "MODEL.WEIGHTS", "none", "INPUT.SIZE", "[128, 64]"),
    *("DATASETS.NAME", "synthetic", "DATASETS.ROOT", "/home/somebody/data", "OUTPUT_DIR", "/home/somebody/run"),
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The last of a run that has ended, with its scores."""
    torch.manual_seed(0)
    config = parse_config("", SETTINGS)
    network = build.network(config, num_classes=5)
    path = tmp_path / "run" / "checkpoints" / "rri_last.pth"
    content = {"model": network.state_dict(), "config": config.dump(), "num_classes": 5}
    save_checkpoint(path, content)
    score = {"feature": "input", "normalized": True, "flip": False, "rank1": 0.5, "mAP": 0.25}
    row = {
        "run": "rri",
        "stage": "step0",
        "round": 0,
        "scores": [score],
        "epochs": 1,
        "seconds": 1.0,
        "train_loss": 1.0,
    }
    row["correlation"] = correlation_metric(network.eigenlayer.vectors.detach())
    scores = {"dataset": "synthetic", "rows": [row], "stopped": "max_rounds"}
    (tmp_path / "run" / "scores.json").write_text(json.dumps(scores))
    return path


def test_onnx_from_a_checkpoint_to_an_answer(tool: Tool, checkpoint: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    crops = tmp_path / "crops"
    crops.mkdir()
    for number in range(4):
        Image.effect_noise((40, 80), 90).convert("RGB").save(crops / f"{number}.png")
    output = tmp_path / "deep" / "person.onnx"
    ended = tool(
        "export", "--weights", checkpoint, "--output", output, "--check", crops, "--preprocessing", "inside"
    ).ok()
    assert "Largest difference from PyTorch on 4 crops" in ended.out and "128 x 64" in ended.out
    assert sorted(path.name for path in output.parent.iterdir()) == ["person.onnx", "person.onnx.md"]
    session = onnxruntime.InferenceSession(output.read_bytes(), providers=["CPUExecutionProvider"])
    properties = session.get_modelmeta().custom_metadata_map
    embedder = Embedder.load(checkpoint, device="cpu")
    assert properties["model_id"] == embedder.model_id and properties["normalised_by"] == "file"
    assert parse_config(properties["config"]).MODEL == embedder.config.MODEL
    assert b"somebody" not in output.read_bytes()
    paths = sorted(crops.iterdir())
    pixels = [Image.open(path).resize((64, 128), Image.Resampling.BILINEAR) for path in paths]
    found = session.run(None, {"images": np.stack([np.asarray(p).transpose(2, 0, 1) for p in pixels])})[0]
    np.testing.assert_allclose(found, embedder.embed(pixels), atol=1e-4)
    front = yaml.safe_load(output.with_name("person.onnx.md").read_text(encoding="utf-8").split("---\n")[1])
    assert front["datasets"] == ["synthetic"] and front["license"] == "unknown"
    values = {m["type"]: m["value"] for m in front["model-index"][0]["results"][0]["metrics"]}
    assert values == {"rank-1": 0.5, "mAP": 0.25}


def test_a_torch_program_at_other_means(tool: Tool, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "person.pt2"
    arguments = ("export", "--weights", checkpoint, "--output", output, "--feature", "output", "--no-normalize")
    tool(*arguments, "--licence", "mit", "--data", "drawn", "INPUT.MEAN", "[0.5, 0.5, 0.5]").ok()
    extra = {METADATA_FILE: ""}
    module = torch.export.load(io.BytesIO(output.read_bytes()), extra_files=extra).module()
    properties = json.loads(extra[METADATA_FILE])
    assert (properties["feature"], properties["normalised"], properties["licence"], properties["data"]) == (
        "output",
        "false",
        "mit",
        "drawn",
    )
    assert properties["model_id"] != Embedder.load(checkpoint, device="cpu", feature="output").model_id
    assert module(torch.zeros(3, 3, 128, 64)).shape == (3, int(properties["dim"]))
    card = output.with_name("person.pt2.md").read_text(encoding="utf-8")
    # The scores are those of the network's own mean.
    assert "model-index" not in card and "no scores were found for this checkpoint" in card
    before = output.read_bytes()
    tool(*arguments).fails("person.pt2 already exists; give another --output, or --force")
    assert output.read_bytes() == before
    tool(*arguments, "--force").ok()
    assert output.read_bytes() != before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--output", "m.txt"), "--output m.txt must end in .onnx for --format onnx"),
        (("--output", "m.onnx", "--format", "torch"), "must end in .pt2 for --format torch"),
        (("--output", "m.pt2", "MODEL.BACKBONE", "resnet18"), "MODEL.BACKBONE: an export does not change the network"),
        (("--output", "m.pt2", "INPUT.SIZE", "[256, 128]"), "INPUT.SIZE [256, 128] must be [128, 64]"),
        (("--output", "m.pt2", "--check", "none.jpg"), "none.jpg"),
        (("--output", "m.pt2", "--scores", "none.json"), "none.json: not an evaluation.json"),
        (("--output", "m.pt2", "--weights", "none.pth"), "none.pth: no such checkpoint"),
        (("--output", "folder.pt2"), "folder.pt2 is a folder"),
    ],
)
def test_mistakes_are_reported_in_a_line_and_leave_nothing(
    tool: Tool, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], message: str
) -> None:
    folder = tmp_path / "here"
    (folder / "folder.pt2").mkdir(parents=True)
    monkeypatch.chdir(folder)
    tool("export", "--weights", checkpoint, *more).fails(message, alone=True)
    assert [path.name for path in folder.iterdir()] == ["folder.pt2"] and not list((folder / "folder.pt2").iterdir())


def test_a_difference_above_the_limit_leaves_no_file(
    tool: Tool, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCES, "torch", 0.0)
    ended = tool("export", "--weights", checkpoint, "--output", tmp_path / "new" / "m.pt2", "--preprocessing", "inside")
    assert ended.code == 2 and "differs from PyTorch by" in ended.err and "nothing was written" in ended.err
    assert not (tmp_path / "new").exists()


def test_a_missing_package_names_the_extra(
    tool: Tool, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ended = tool("export", "--weights", checkpoint, "--output", tmp_path / "m.onnx")
    ended.fails(f"onnxruntime (missing): {install_command('export')}")
    assert not (tmp_path / "m.onnx").exists()
