"""STEP0.CHECKPOINT: a trained network to start from, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from reid.config import build
from reid.errors import InputError
from reid.io.checkpoint import save_checkpoint

NETWORK = ("MODEL.BACKBONE", "small_convolution", "MODEL.WEIGHTS", "none", "INPUT.SIZE", "[128, 64]")
SMALL = (*NETWORK, "MODEL.EIGENLAYER.DIM", "8", "LOSS.CENTER", "0.1")


def configured(*overrides: str) -> CfgNode:
    return build.config_from_overrides([*SMALL, *overrides], source="a test")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = configured()
    torch.manual_seed(1)
    model = build.network(config, num_classes=5)
    objective = build.objective(config, model, num_classes=5)
    content = {"config": config.dump(), "num_classes": 5, "objective": objective.state_dict()}
    save_checkpoint(tmp_path / "trained.pth", {**content, "model": model.state_dict()})
    return tmp_path / "trained.pth"


def load(checkpoint: Path, *overrides: str, classes: int = 5) -> dict[str, torch.Tensor]:
    config = configured("STEP0.CHECKPOINT", str(checkpoint), *overrides)
    torch.manual_seed(2)
    model = build.network(config, num_classes=classes)
    objective = build.objective(config, model, num_classes=classes)
    build.load_trained(config, model, objective)
    return {**model.state_dict(), **objective.state_dict()}


def test_every_weight_is_taken(checkpoint: Path) -> None:
    torch.manual_seed(1)
    model = build.network(configured(), num_classes=5)
    objective = build.objective(configured(), model, num_classes=5)
    expected, found = {**model.state_dict(), **objective.state_dict()}, load(checkpoint)
    assert found.keys() == expected.keys() and len(objective.state_dict()) > 0
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_other_losses_start_anew(checkpoint: Path) -> None:
    assert torch.equal(load(checkpoint, "LOSS.CENTER", "0")["classifier.weight"], load(checkpoint)["classifier.weight"])


def test_what_does_not_fit_is_one_line(checkpoint: Path) -> None:
    pooling = ("MODEL.POOLING.NAME", "max", "MODEL.EIGENLAYER.BIAS", "True")
    for overrides, classes, message in (
        (pooling, 5, "MODEL.EIGENLAYER.BIAS, MODEL.POOLING.NAME"),
        ((), 7, "was trained with 5 identities, and this training set has 7"),
    ):
        with pytest.raises(InputError, match=message) as error:
            load(checkpoint, *overrides, classes=classes)
        assert str(checkpoint) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="no such"):
        load(checkpoint.with_name("none.pth"))
