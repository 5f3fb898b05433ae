"""The programs in `examples/` run from the first line to the last, on few epochs of small images."""

from __future__ import annotations

import contextlib
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from narrow_resnet import narrow_resnet
from torch import nn

from reid.decorrelation import correlation_metric, restrained

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = {"own_loop": "timm", "lightning_loop": "lightning", "metric_learning": "torchvision"}  # and what they need
ADDED = re.compile(r"rri = RRI|for \w+ in rri|print\(report|with restrained\(")


def narrow(*_: Any, num_classes: int) -> nn.Module:
    """In place of the ResNet-18 of timm or torchvision."""
    network = narrow_resnet()
    if num_classes == 0:
        network.num_features, network.fc = network.fc.in_features, nn.Identity()
    return network


@pytest.mark.filterwarnings("ignore")  # Lightning's, about workers and a few batches
@pytest.mark.parametrize("name", EXAMPLES)
def test_it_decorrelates_restrains_and_prints_both_scores(
    name: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(EXAMPLES[name])
    monkeypatch.syspath_prepend(str(FOLDER))
    example = runpy.run_path(str(FOLDER / f"{name}.py"))
    correlations = []

    @contextlib.contextmanager
    def observed(layer: nn.Linear) -> Iterator[None]:
        before = layer.weight.detach().clone()
        correlations.append(correlation_metric(layer))
        with restrained(layer):
            yield
        assert torch.equal(layer.weight, before)

    assert example["Network"](classes=3)(torch.rand(2, 3, 32, 16)) is not None  # with the whole ResNet-18
    example["main"].__globals__.update(restrained=observed, resnet18=narrow, create_model=narrow)
    example["main"](size=(32, 16), epochs=1, cache=tmp_path_factory.getbasetemp() / "cache")
    printed = capsys.readouterr().out
    rounds = len(correlations) // 2
    assert correlations[:rounds] == pytest.approx([1.0] * rounds, abs=1e-5)
    assert max(correlations[rounds:]) < 0.9  # the control's
    assert len(re.findall(r"^S\(W\) 0\.\d{3} -> 1\.000 \(US\)", printed, re.MULTILINE)) == rounds
    row = r"^(RRI|control) +S\(W\) ([\d.]+), mAP ([\d.]+)% \(\d rounds, (?:converged|max_rounds)\)$"
    found = {name: (float(s_of_w), float(mAP)) for name, s_of_w, mAP in re.findall(row, printed, re.MULTILINE)}
    assert found["RRI"][0] > found["control"][0] + 0.02
    # So short a training shows no gain, only that the replacement loses little of what the control has learned.
    assert found["RRI"][1] > 0.6 * found["control"][1] > 6


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_takes_five_lines(name: str) -> None:
    lines = (FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()
    added = [line for line in lines if ADDED.search(line)]
    assert 3 <= len(added) <= 5, added
