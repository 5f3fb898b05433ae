"""The model card: front matter as a YAML parser reads it, and the text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reid.errors import InputError
from reid.inference.export.card import render_card
from reid.inference.export.metadata import ModelMetadata, model_id_with_preprocessing
from reid.inference.export.scores import MeasuredScores

pytest.importorskip("jinja2")

MakeMetadata = Callable[..., ModelMetadata]
SCORE = {"feature": "input", "normalized": True, "flip": False, "rank1": 0.8260097, "mAP": 0.65, "mINP": 0.3}


def read(card: str) -> tuple[dict[str, Any], str]:
    start, front, text = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front), text


def render(
    metadata: ModelMetadata, measured: MeasuredScores | None = None, format: str = "onnx", name: str = "person.onnx"
) -> str:
    return render_card(Path("folder") / name, metadata, measured, format=format, verification="Compared on 20 images.")


def test_scores_for_the_interface_of_the_file(make_metadata: MakeMetadata) -> None:
    metadata = make_metadata(fields={"trained_on": ("market1501", "cuhk01"), "license": "CC-BY-NC-4.0"})
    other = {**SCORE, "normalized": False, "rank1": 0.111}
    front, text = read(render(metadata, MeasuredScores("market1501", (other, SCORE), "scores.json")))
    assert front["license"] == "cc-by-nc-4.0" and "license_name" not in front
    assert front["datasets"] == ["market1501", "cuhk01"] and front["library_name"] == "onnx"
    assert front["metrics"] == ["rank-1", "mAP", "mINP"] and "person-re-identification" in front["tags"]
    ((model,), (result,)) = front["model-index"], front["model-index"][0]["results"]
    assert model["name"] == "person" and result["dataset"]["type"] == "market1501"
    assert {m["type"]: m["value"] for m in result["metrics"]} == {"rank-1": 0.82601, "mAP": 0.65, "mINP": 0.3}
    assert "| input (this file) | yes | no | 82.6 |  |  | 65.0 | 30.0 |" in text
    assert "| input | no | no | 11.1 |" in text
    flipped, text = read(render(make_metadata(flip=True), MeasuredScores("market1501", (other, SCORE), "scores.json")))
    assert "model-index" not in flipped and "metrics" not in flipped
    assert "No row was measured with the outputs of this file" in text and "(this file)" not in text


def test_the_gain_over_the_control_with_its_interval(make_metadata: MakeMetadata) -> None:
    control = {**SCORE, "rank1": 0.8, "mAP": 0.62}
    difference = {"rank1": [0.0260097, -0.01, 0.05], "mAP": [0.03, 0.012, 0.048], "mINP": [0.0, 0.0, 0.0]}
    gain = {"final": SCORE, "control_final": control, "difference": difference}
    _, text = read(render(make_metadata(), MeasuredScores("market1501", (SCORE,), "scores.json", gain)))
    assert "L2-normalized, no flip test: rank-1 +2.6 (-1.0 to +5.0), mAP +3.0 (+1.2 to +4.8); in brackets" in text
    gain["difference"] = None
    _, text = read(render(make_metadata(), MeasuredScores("market1501", (SCORE,), "scores.json", gain)))
    assert "rank-1 +2.6, mAP +3.0." in text


def test_unknown_facts_are_stated(make_metadata: MakeMetadata) -> None:
    front, text = read(render(make_metadata(fields={"weights": "imagenet"})))
    assert front["license"] == "unknown" and not {"datasets", "metrics", "model-index"} & front.keys()
    for words in (
        "Unknown.",
        "An unknown license gives no permission",
        "Unknown: no scores",
        "`imagenet`",
        "S(W): 0.2500",
    ):
        assert words in text
    for heading in ("Intended use", "Out-of-scope use", "Risks", "Limitations", "Training data", "Input and output"):
        assert f"\n## {heading}\n" in text
    assert "this file accepts only 128 × 64" in text
    assert "no person was photographed" not in text


def test_synthetic_training_images(make_metadata: MakeMetadata) -> None:
    _, text = read(render(make_metadata(fields={"trained_on": ("synthetic",)})))
    assert "from random weights on synthetic images: no person was photographed" in text
    _, text = read(render(make_metadata(fields={"trained_on": ("synthetic", "market1501")})))
    assert "no person was photographed" not in text


def test_a_converted_checkpoint_names_its_origin(make_metadata: MakeMetadata) -> None:
    front, text = read(render(make_metadata(fields={"origin": "fast-reid, resnet50"})))
    assert "svdnet" not in front["tags"] and "SVDNet" not in text
    assert "datasets" not in front and "Converted from a checkpoint of another codebase: fast\\-reid, resnet50" in text


def test_user_text_is_escaped(make_metadata: MakeMetadata) -> None:
    metadata = make_metadata(fields={"license": "ours: 'no' | #1", "data": "A | <b>set</b> of [ours](x) *"})
    front, text = read(render(metadata))
    assert (front["license"], front["license_name"]) == ("other", "ours: 'no' | #1")
    assert "A \\| \\<b\\>set\\</b\\> of \\[ours\\]\\(x\\) \\*" in text
    with pytest.raises(InputError, match="--data must be one line"):
        make_metadata(fields={"data": "two\nlines"})
    with pytest.raises(InputError, match="--license is empty"):
        make_metadata(fields={"license": ""})


@pytest.mark.parametrize(("preprocessing", "resize"), [("tracker", "bicubic"), ("inside", "bilinear")])
def test_the_example_runs(make_metadata: MakeMetadata, tmp_path: Path, preprocessing: str, resize: str) -> None:
    """The Python example in the card prepares images as the interface requires."""
    metadata = make_metadata(preprocessing=preprocessing, resize=resize)
    code = render(metadata).split("```python\n")[1].split("```")[0]
    fed: dict[str, Any] = {}

    class Session:
        def __init__(self, path: str, providers: list[str]) -> None:
            fed["path"] = path

        def run(self, names: list[str], images: dict[str, Any]) -> list[str]:
            fed.update(images, names=names)
            return ["embedding"]

    import numpy as np
    import torch
    from PIL import Image

    Image.effect_noise((64, 128), 90).convert("RGB").save(tmp_path / "crop.png")
    code = code.replace("import onnxruntime\n", "").replace("onnxruntime.InferenceSession", "Session")
    exec(code.replace("crop.jpg", str(tmp_path / "crop.png")), {"Session": Session})
    pixels = torch.from_numpy(np.array(Image.open(tmp_path / "crop.png"))).permute(2, 0, 1)[None]
    assert fed["path"] == "person.onnx" and fed["names"] == ["embeddings"]
    np.testing.assert_allclose(fed["images"], metadata.interface.prepare_images(pixels).numpy(), atol=1e-6)
    assert fed["images"].dtype == {"tracker": np.float32, "inside": np.uint8}[preprocessing]


def test_other_preprocessing_is_another_model() -> None:
    ids = {model_id_with_preprocessing("ab", {"size": size}) for size in ((256, 128), (128, 64))} | {"ab"}
    assert len(ids) == 3
