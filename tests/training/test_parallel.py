"""The theorem: processes with a share of each batch do what one does with the whole.

It holds where every row of a batch is computed for itself: BatchNorm's statistics frozen, no dropout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gloo_jobs
import pytest
import torch
from gloo import together

NAMES = [name for name in gloo_jobs.SETTINGS if name != "alive"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes end with, in every setting."""
    ended = together(gloo_jobs.trainings, tmp_path_factory.mktemp("pair"), [*NAMES, "alive"])
    assert [process.code for process in ended] == [0, 0], [process.told for process in ended]
    return [process.value for process in ended]


def assert_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for part in ("model", "objective"):
        assert found[part].keys() == expected[part].keys()
        for name, tensor in expected[part].items():
            torch.testing.assert_close(
                found[part][name], tensor, rtol=2e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
            )
    assert len(found["log"]) == len(expected["log"]) > 1
    for ours, theirs in zip(found["log"], expected["log"], strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            exact = isinstance(value, str | int)
            assert ours[key] == (value if exact else pytest.approx(value, rel=1e-5, abs=1e-6)), (key, ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_two_are_one(pair: list[dict[str, Any]], name: str) -> None:
    alone = gloo_jobs.Run(name)
    began = {key: tensor.clone() for key, tensor in alone.state.model.state_dict().items()}
    expected = alone.run()
    # Something has been learned, so that being alike says something.
    assert any((began[key] - tensor).abs().max() > 0.01 for key, tensor in expected["model"].items())
    if name == "skipped":
        assert all(entry["skipped"] for entry in expected["log"])
    if name == "unused":
        assert torch.equal(began["classifier.weight"], pair[0][name]["model"]["classifier.weight"])
    assert_alike(pair[0][name], expected)


@pytest.mark.parametrize("name", gloo_jobs.SETTINGS)
def test_both_hold_the_same_bits(pair: list[dict[str, Any]], name: str) -> None:
    one, two = (values[name] for values in pair)
    assert one["log"] == two["log"]
    for part in ("model", "objective"):
        assert all(torch.equal(tensor, two[part][key]) for key, tensor in one[part].items()), name


def test_gradients_of_pairs_reach_across(pair: list[dict[str, Any]]) -> None:
    """A triplet loss within the shares would be another: the theorem is no accident of these settings."""
    run = gloo_jobs.Run("triplet")
    run.loader = gloo_jobs.loader(8, gloo_jobs.SETTINGS["triplet"][2])  # two persons in place of three
    assert run.run()["log"][-1]["loss"] != pytest.approx(pair[0]["triplet"]["log"][-1]["loss"], rel=1e-3)


@pytest.mark.parametrize("name", ["alive", "mined"])
def test_resumed_by_two_and_by_one(tmp_path: Path, name: str) -> None:
    ended = together(gloo_jobs.broken_and_resumed, tmp_path, name, 8)
    assert [process.code for process in ended] == [0, 0], [process.told for process in ended]
    for process in ended:
        whole, resumed = process.value["whole"], process.value["resumed"]
        assert resumed["log"] == whole["log"][-len(resumed["log"]) :]
        assert all(torch.equal(tensor, resumed["model"][key]) for key, tensor in whole["model"].items())
    content = ended[0].value["checkpoint"]
    assert len(content["middle"]["others"]) == 1
    assert (
        not torch.equal(content["middle"]["random"]["torch"], content["middle"]["others"][0]["torch"])
        or name != "alive"
    )
    alone = gloo_jobs.resumed(name, content)
    if name != "alive":
        assert_alike(alone, {**ended[0].value["resumed"]})
