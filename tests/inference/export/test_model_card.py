"""The card: front matter that a YAML parser reads back, and the words beneath."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reid.errors import InputError
from reid.inference.export.card import render_card
from reid.inference.export.metadata import Facts, id_with_other_images
from reid.inference.export.scores import Measured

pytest.importorskip("jinja2")

Describe = Callable[..., Facts]
SCORE = {"feature": "input", "normalized": True, "flip": False, "rank1": 0.8260097, "mAP": 0.65, "mINP": 0.3}


def read(card: str) -> tuple[dict[str, Any], str]:
    start, front, text = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front), text


def render(facts: Facts, measured: Measured | None = None, format: str = "onnx", name: str = "person.onnx") -> str:
    return render_card(Path("folder") / name, facts, measured, format=format, checked="Compared on 20 images.")


def test_scores_in_the_form_of_the_file(describe: Describe) -> None:
    facts = describe(facts={"trained_on": ("market1501", "cuhk01"), "license": "CC-BY-NC-4.0"})
    other = {**SCORE, "normalized": False, "rank1": 0.111}
    front, text = read(render(facts, Measured("market1501", (other, SCORE), "scores.json")))
    assert front["license"] == "cc-by-nc-4.0" and "license_name" not in front
    assert front["datasets"] == ["market1501", "cuhk01"] and front["library_name"] == "onnx"
    assert front["metrics"] == ["rank-1", "mAP", "mINP"] and "person-re-identification" in front["tags"]
    ((model,), (result,)) = front["model-index"], front["model-index"][0]["results"]
    assert model["name"] == "person" and result["dataset"]["type"] == "market1501"
    assert {m["type"]: m["value"] for m in result["metrics"]} == {"rank-1": 0.82601, "mAP": 0.65, "mINP": 0.3}
    assert "| input (this file) | yes | no | 82.6 |  |  | 65.0 | 30.0 |" in text
    assert "| input | no | no | 11.1 |" in text
    flipped, text = read(render(describe(flip=True), Measured("market1501", (other, SCORE), "scores.json")))
    assert "model-index" not in flipped and "metrics" not in flipped
    assert "None of these rows has the very form of this file" in text and "(this file)" not in text


def test_nothing_known_is_said(describe: Describe) -> None:
    front, text = read(render(describe(facts={"weights": "imagenet"})))
    assert front["license"] == "unknown" and not {"datasets", "metrics", "model-index"} & front.keys()
    for words in ("Not known.", "Unknown is no permission", "Not known: no scores", "`imagenet`", "S(W): 0.2500"):
        assert words in text
    for heading in ("Intended use", "Not intended", "Who may be hurt", "Limits", "Training data", "Input and output"):
        assert f"\n## {heading}\n" in text
    assert "this file takes 128 × 64 and nothing else" in text
    assert "nobody was photographed" not in text


def test_drawn_images_hurt_nobody(describe: Describe) -> None:
    _, text = read(render(describe(facts={"trained_on": ("synthetic",)})))
    assert "from random weights on images that the project draws itself: nobody was photographed" in text
    _, text = read(render(describe(facts={"trained_on": ("synthetic", "market1501")})))
    assert "nobody was photographed" not in text


def test_a_converted_checkpoint_is_called_one(describe: Describe) -> None:
    front, text = read(render(describe(facts={"origin": "fast-reid, resnet50"})))
    assert "svdnet" not in front["tags"] and "SVDNet" not in text
    assert "datasets" not in front and "another codebase, converted: fast\\-reid, resnet50" in text


def test_words_of_the_user_are_text(describe: Describe) -> None:
    facts = describe(facts={"license": "ours: 'no' | #1", "data": "A | <b>set</b> of [ours](x) *"})
    front, text = read(render(facts))
    assert (front["license"], front["license_name"]) == ("other", "ours: 'no' | #1")
    assert "A \\| \\<b\\>set\\</b\\> of \\[ours\\]\\(x\\) \\*" in text
    with pytest.raises(InputError, match="--data must be one line"):
        describe(facts={"data": "two\nlines"})
    with pytest.raises(InputError, match="--license is empty"):
        describe(facts={"license": ""})


@pytest.mark.parametrize(("preprocessing", "resize"), [("tracker", "bicubic"), ("inside", "bilinear")])
def test_the_example_runs(describe: Describe, tmp_path: Path, preprocessing: str, resize: str) -> None:
    """What stands in the card as Python feeds images as the form takes them."""
    facts = describe(preprocessing=preprocessing, resize=resize)
    code = render(facts).split("```python\n")[1].split("```")[0]
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
    np.testing.assert_allclose(fed["images"], facts.form.taken(pixels).numpy(), atol=1e-6)
    assert fed["images"].dtype == {"tracker": np.float32, "inside": np.uint8}[preprocessing]


def test_other_images_are_another_model() -> None:
    ids = {id_with_other_images("ab", {"size": size}) for size in ((256, 128), (128, 64))} | {"ab"}
    assert len(ids) == 3
