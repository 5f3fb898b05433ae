"""Diagnosis of a network on a dataset, with every number recomputed from weights and images."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from small_run import callbacks, same_plan
from torch import Tensor, nn

from reid.config.build import Loaders
from reid.data.augmentation.augment import Augmentation
from reid.data.loading.loaders import TestLoader, TrainLoader
from reid.decorrelation import correlation_metric, replace_weight
from reid.diagnostics.dataset import DatasetDiagnosisOptions, diagnose_dataset
from reid.diagnostics.feature_statistics import describe_features
from reid.evaluation.features import extract
from reid.evaluation.retrieval import score
from reid.losses.objective import LossWeights, Objective
from reid.model.eigenlayer import Eigenlayer
from reid.model.network import ReidNetwork
from reid.records import score_list
from reid.svdnet import decorrelate
from reid.training.epoch import measure_loss
from reid.training.optimizer import Solver
from reid.training.schedule import Schedule
from reid.training.seeding import seed_from
from reid.training.state import TrainState

CLASSES, SEED, LOSS_IMAGES = 5, 3, 21
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CPU = torch.device("cpu")


class Trunk(nn.Module):
    """(B, 3, H, W) -> (B, 12, H / 2, W / 2)."""

    out_channels = 12

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(12)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).relu()


def network(*, bias: bool = False, relu: bool = False, last: bool = False) -> ReidNetwork:
    torch.manual_seed(1)
    eigenlayer = Eigenlayer(12, CLASSES if last else 6, bias=bias, relu=relu, init_std=0.5)
    if bias:
        nn.init.normal_(eigenlayer.bias, std=2.0)
    classifier = None if last else nn.Linear(6, CLASSES)
    pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = ReidNetwork(Trunk(), pooling, nn.Identity(), eigenlayer, classifier, 0.5)
    nn.init.uniform_(model.backbone.norm.running_mean)  # so that evaluation mode differs from training mode
    return model


def colored(identities: np.ndarray, seed: int) -> np.ndarray:
    """Noise about a color of each identity: (N, 3, 8, 6) uint8."""
    random = np.random.default_rng(seed)
    colors = np.random.default_rng(12).uniform(40, 215, size=(50, 3))[identities]
    return (colors[:, :, None, None] + random.normal(scale=35, size=(len(identities), 3, 8, 6))).clip(0, 255)


def loaders(classes: int = CLASSES) -> Loaders:
    def test(identities: np.ndarray, camera: int) -> TestLoader:
        cameras = np.full(len(identities), camera)
        paths = [f"{camera}_{i}.jpg" for i in range(len(identities))]
        images = colored(identities, camera).astype(np.uint8)
        return TestLoader(images, identities, cameras, paths, batch_size=16, mean=MEAN, std=STD, device=CPU)

    labels = np.arange(47) % classes
    train = TrainLoader(
        images=colored(labels + 20, 9).astype(np.uint8),
        labels=labels,
        batch_size=8,
        augmentation=Augmentation(MEAN, STD, flip=0.5, pad=2, erasing=0.5),
        device=CPU,
    )
    gallery = np.concatenate([np.arange(40) % 6 + 1, [-1, -1, -1, 0, 0]])
    return Loaders(train, test(np.arange(12) % 6 + 1, 1), test(gallery, 2))


SMOOTHED = Objective(LossWeights(label_smoothing=0.1))


def diagnose(model: ReidNetwork, data: Loaders | None = None, **changes: Any) -> dict[str, Any]:
    options = DatasetDiagnosisOptions(SEED, name="drawn", loss_images=LOSS_IMAGES, label_smoothing=0.1, pairs=200)
    return diagnose_dataset(model, data or loaders(), options=dataclasses.replace(options, **changes))


def with_weight(model: ReidNetwork, weight: Tensor) -> ReidNetwork:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.eigenlayer.vectors.copy_(weight)
    return other


def test_content_is_json() -> None:
    found = diagnose(network())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["name"] == "drawn"
    assert found["counts"] == {"train": 47, "train_identities": 5, "query": 12, "gallery": 45, "junk": 3}
    layer = {"d_in": 12, "k": 6, "bias": False, "relu": False, "last": False, "parameters": 72}
    assert found["eigenlayer"] == layer
    assert (found["classes"], found["loss_images"], found["label_smoothing"]) == (5, LOSS_IMAGES, 0.1)
    assert [row["rank"] for row in found["truncated_svd"]] == [row["rank"] for row in found["pca"]] == [1, 2, 4, 6]
    assert found == diagnose(network())


def test_the_network_stays_as_it_was() -> None:
    model = network().train()
    model.backbone.norm.eval()
    before = copy.deepcopy(model.state_dict())
    diagnose(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training and not model.backbone.norm.training


def test_statistics_are_over_what_retrieval_compares_and_the_plain_training_images() -> None:
    model, data = network(), loaders()
    found = diagnose(model, data)["features"]
    query, gallery = extract(model, data.query), extract(model, data.gallery)
    with torch.no_grad():
        plain = [model.eval().embed(images) for images, _ in data.train.sample(47, 0)]
    for feature in ("input", "output"):
        real = np.concatenate([query[feature].values, gallery[feature].values[gallery["input"].identities >= 0]])
        train = torch.cat([getattr(part, feature) for part in plain]).numpy()
        assert len(real) == 12 + 42
        for part, values in (("retrieval", real), ("train", train)):
            expected = describe_features(values)
            for key, value in expected.items():
                if key == "variance":
                    value = [share for entry in value for share in entry.values()]
                    got = [share for entry in found[feature][part][key] for share in entry.values()]
                else:
                    got = found[feature][part][key]
                # The network multiplies in float32.
                assert got == pytest.approx(value, rel=1e-4, abs=1e-6), (feature, part, key)


@pytest.mark.filterwarnings("ignore:.*zero and have no direction")
@pytest.mark.parametrize(
    "options", [{}, {"bias": True}, {"relu": True}, {"bias": True, "relu": True}, {"last": True}], ids=str
)
def test_each_row_is_what_a_network_with_that_weight_gives(options: dict[str, bool]) -> None:
    model, data = network(**options), loaders()
    found = diagnose(model, data)
    sample = seed_from(SEED, "loss before and after a replacement")
    for row in found["replacements"]:
        variant = "none" if row["variant"] == "Orig" else row["variant"]
        weight = replace_weight(model.eigenlayer.vectors, variant=variant).weight
        other = with_weight(model, weight)
        features = {("output", False): tuple(extract(other, part)["output"] for part in (data.query, data.gallery))}
        assert same_scores(row["scores"], score_list(score(features)))
        loss = measure_loss(other, data.train.sample(LOSS_IMAGES, sample), objective=SMOOTHED)
        assert row["train_loss_after"] == pytest.approx(loss, rel=1e-5)
        assert row["correlation"] == pytest.approx(correlation_metric(other.eigenlayer.vectors), abs=1e-5)
    for row in found["truncated_svd"]:
        u, s, vt = np.linalg.svd(model.eigenlayer.vectors.detach().double().numpy(), full_matrices=False)
        weight = torch.from_numpy((u[:, : row["rank"]] * s[: row["rank"]]) @ vt[: row["rank"]])
        loss = measure_loss(with_weight(model, weight), data.train.sample(LOSS_IMAGES, sample), objective=SMOOTHED)
        assert row["train_loss"] == pytest.approx(loss, rel=1e-5)
    inputs = {("input", False): tuple(extract(model, part)["input"] for part in (data.query, data.gallery))}
    assert found["input_scores"] == score_list(score(inputs))


def same_scores(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """Equal up to what a swap of two places of nearly equal distance moves, float32 against float64."""
    assert [row["normalized"] for row in found] == [row["normalized"] for row in expected] == [False, True]
    names = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP", "queries")
    pairs = zip(found, expected, strict=True)
    return all(a[name] == pytest.approx(b[name], abs=2e-3) for a, b in pairs for name in names)


@pytest.mark.parametrize("variant", ["US", "UVt"])
def test_the_loss_is_the_one_that_decorrelate_logs(variant: str) -> None:
    model, data = network(), loaders()
    state = TrainState("rri", copy.deepcopy(model), SMOOTHED)
    plan = same_plan(Schedule(1, (0.1,)), Solver(seed=SEED), variant=variant, loss_images=LOSS_IMAGES)
    row = decorrelate.run(state, data.train, plan, callbacks(), round=1)
    found = next(r for r in diagnose(model, data)["replacements"] if r["variant"] == variant)
    for key in ("train_loss_before", "train_loss_after"):
        assert found[key] == pytest.approx(row.extra[key], rel=1e-5)


def test_pca_knows_the_training_images_alone() -> None:
    model, data = network(), loaders()
    again = dataclasses.replace(data, query=dataclasses.replace(data.query, images=255 - data.query.images))
    first, second = diagnose(model, data)["pca"], diagnose(model, again)["pca"]
    assert [row["variance"] for row in first] == [row["variance"] for row in second]
    assert [row["scores"] for row in first] != [row["scores"] for row in second]


def test_other_identities_than_the_classifier_knows_have_no_loss() -> None:
    found = diagnose(network(), loaders(classes=4))
    assert (found["classes"], found["counts"]["train_identities"], found["loss_images"]) == (5, 4, 0)
    assert {row["train_loss_after"] for row in found["replacements"]} == {None}
    assert {row["train_loss"] for row in found["truncated_svd"]} == {None}
    assert all(row["scores"] for row in found["replacements"])


def test_more_loss_images_than_there_are() -> None:
    assert diagnose(network(), loss_images=4096)["loss_images"] == 47


def test_equalities_of_the_whole() -> None:
    found = diagnose(network())["equalities"]
    demanded = [entry for entry in found["rows"] if entry["demanded"]]
    assert [entry["variants"] for entry in demanded] == [["Orig", "US"], ["U", "UVt"]]
    assert all(entry["max_relative_deviation"] < 1e-10 for entry in demanded)
