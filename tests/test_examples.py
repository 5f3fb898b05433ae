"""The programs in `examples/` run from the first line to the last, on few epochs of small images."""

from __future__ import annotations

import contextlib
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from narrow_resnet import narrow_resnet
from torch import nn

from reid.decorrelation import correlation_metric, restrained

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
ADDED = re.compile(r"rri = RRI|for \w+ in rri|print\((?:report|f\"S)|with restrained\(model")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_decorrelates_restrains_and_prints_both_scores(
    path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    example = runpy.run_path(str(path))
    correlations = []

    @contextlib.contextmanager
    def observed(layer: nn.Linear) -> Iterator[None]:
        before = layer.weight.detach().clone()
        correlations.append(correlation_metric(layer))
        with restrained(layer):
            yield
        assert torch.equal(layer.weight, before)

    assert example["Network"](classes=3)(torch.rand(2, 3, 32, 16)) is not None  # with torchvision's ResNet-18
    example["main"].__globals__.update(restrained=observed, resnet18=lambda num_classes: narrow_resnet())
    example["main"](size=(32, 16), epochs=1, cache=tmp_path_factory.getbasetemp() / "cache")
    printed = capsys.readouterr().out
    rounds = len(correlations) // 2
    assert correlations[:rounds] == pytest.approx([1.0] * rounds, abs=1e-5)
    assert max(correlations[rounds:]) < 0.9  # the control's
    assert len(re.findall(r"^S\(W\) 0\.\d{3} -> 1\.000 \(US\)", printed, re.MULTILINE)) == rounds
    assert re.search(r"^S\(W\) after each round: .*\((converged|max_rounds)\)$", printed, re.MULTILINE)
    scores = dict(re.findall(r"^(RRI|control) +mAP ([\d.]+)%$", printed, re.MULTILINE))
    assert set(scores) == {"RRI", "control"} and all(0 < float(score) <= 100 for score in scores.values())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_takes_five_lines(path: Path) -> None:
    added = [line for line in path.read_text(encoding="utf-8").splitlines() if ADDED.search(line)]
    assert 3 <= len(added) <= 5, added
