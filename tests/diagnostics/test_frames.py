"""Layers of a diagnosis as CSV and as a data frame."""

from __future__ import annotations

import csv

import pytest
import torch

from reid.diagnostics.changes import compare_layers
from reid.diagnostics.frames import flat_rows, to_csv, to_frame
from reid.diagnostics.survey import find_layers, survey
from reid.errors import InputError


def content() -> dict[str, object]:
    torch.manual_seed(0)
    tensors = {"a.weight": torch.randn(30, 40), "d.weight": torch.randn(30, 1, 3, 3), "z.weight": torch.zeros(2, 2)}
    return {"survey": survey(find_layers(tensors))}


def test_every_number_of_the_survey_is_in_the_table() -> None:
    rows = content()["survey"]
    assert isinstance(rows, list)
    lines = list(csv.DictReader(to_csv(content()).splitlines()))
    assert [line["name"] for line in lines] == [row["name"] for row in rows] and len({len(line) for line in lines}) == 1
    assert float(lines[0]["spectral.alpha"]) == rows[0]["spectral"]["alpha"]
    assert float(lines[0]["spectral.shuffled.D"]) == rows[0]["spectral"]["shuffled"]["D"]
    assert lines[1]["spectral.alpha"] == "" and lines[2]["broken"] == "all 4 entries are zero"
    assert "spectral" not in lines[0]


def test_two_checkpoints() -> None:
    layers = find_layers({"a.weight": torch.randn(30, 40)})
    rows = flat_rows({"changes": compare_layers(layers, layers)})
    assert rows[0]["distance"] == 0 and rows[0]["before.correlation"] == rows[0]["after.correlation"]
    with pytest.raises(InputError, match="requires a diagnosis with a survey"):
        flat_rows({"layers": []})


def test_frame() -> None:
    pytest.importorskip("pandas")
    frame = to_frame(content())
    assert frame.loc["a.weight", "spectral.num_evals"] == 30 and len(frame) == 3
