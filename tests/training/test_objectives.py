"""Stages that minimize more than the identity loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from small_run import callbacks, same_plan
from torch import Tensor
from torch.nn import functional

from reid.losses.objective import LossWeights, Objective
from reid.losses.pairwise import triplet_loss
from reid.model.classifiers import MarginLinear
from reid.model.network import ReidNetwork
from reid.svdnet import step0
from reid.training.epoch import measure_loss
from reid.training.optimizer import Solver
from reid.training.schedule import Schedule
from reid.training.state import TrainState

Make = Callable[[], ReidNetwork]
SCHEDULE = Schedule(epochs=4, lr=(0.05,))


def trained(model: ReidNetwork, loader: Any, weights: LossWeights, epochs: int = 4) -> tuple[TrainState, list[Any]]:
    state = TrainState("rri", model, Objective(weights, num_classes=5, width=12))
    entries: list[dict[str, Any]] = []
    hooks = callbacks(on_epoch_end=lambda s, entry: entries.append(entry))
    schedule = Schedule(epochs=epochs, lr=(0.05,))
    step0.run(state, loader, same_plan(schedule, Solver(weight_decay=0.0)), hooks)
    return state, entries


def test_terms_are_logged_where_there_are_several(make_model: Make, loader: Any) -> None:
    weights = LossWeights(triplet=0.5, penalty="so", penalty_weight=0.1, penalty_steps=((0.5, 0.0),))
    _, entries = trained(make_model(), loader, weights)
    assert list(entries[0]["losses"]) == ["identity", "triplet", "so"]
    assert entries[0]["losses"]["so"] > 0.0 and entries[-1]["losses"]["so"] == 0.0
    for entry in entries:
        assert sum(entry["losses"].values()) == pytest.approx(entry["loss"], rel=1e-5)
    _, alone = trained(make_model(), loader, LossWeights())
    assert "losses" not in alone[0]


def test_a_penalty_pulls_the_weight_vectors_apart(make_model: Make, loader: Any) -> None:
    _, plain = trained(make_model(), loader, LossWeights(), epochs=12)
    _, pulled = trained(make_model(), loader, LossWeights(penalty="so", penalty_weight=0.1), epochs=12)
    assert pulled[-1]["correlation"] > plain[-1]["correlation"] + 0.1


def test_triplet_alone_draws_identities_together(make_model: Make, loader: Any) -> None:
    model = make_model()
    before = triplet_loss(model.eval().embed(loader.images).input, loader.labels, margin=1.0).item()
    trained(model, loader, LossWeights(identity=0.0, triplet=1.0, triplet_margin=1.0), epochs=12)
    assert triplet_loss(model.eval().embed(loader.images).input, loader.labels, margin=1.0).item() < 0.7 * before


def test_centers_are_learned_and_kept(make_model: Make, loader: Any) -> None:
    state, _ = trained(make_model(), loader, LossWeights(center=0.01), epochs=8)
    content = state.to_checkpoint()
    assert content["objective"]["center.centers"].abs().max() > 0.01
    assert state.objective.center is not None
    features = state.model.eval().embed(loader.images).input
    own = torch.stack([features[loader.labels == i].mean(0) for i in range(5)])
    assert (state.objective.center.centers - own).norm() < 0.5 * own.norm()


def test_the_margin_counts_in_training_and_not_in_the_measured_loss(make_model: Make, loader: Any) -> None:
    model = make_model()
    model.dropout.p = 0.0
    model.classifier = MarginLinear(6, 5, "cosface", 4.0, 0.5)
    logits = model.eval()(loader.images)
    measured = measure_loss(model, iter([(loader.images, loader.labels)]), objective=Objective())
    assert measured == pytest.approx(functional.cross_entropy(logits, loader.labels).item(), rel=1e-5)
    embedding = model.embed(loader.images)
    harder = model.classify(embedding.output, loader.labels)
    one_hot = functional.one_hot(loader.labels, 5)
    assert torch.allclose(harder, logits - 4.0 * 0.5 * one_hot, atol=1e-5)
    _, entries = trained(model, loader, LossWeights())
    assert entries[0]["loss"] > measured


@dataclass
class MiningLoader:
    """Remembers the descriptors it was given."""

    images: Tensor
    labels: Tensor
    needs_descriptors: bool = True
    given: list[Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        return 1

    def shard_sizes(self, world: int) -> tuple[int, ...]:
        return (12,)

    def epoch(
        self, seed: int, descriptors: Tensor | None = None, start: int = 0, **shared: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        assert descriptors is not None
        self.given.append(descriptors)
        yield self.images[:12], self.labels[:12]

    def sample(self, count: int, seed: int, **shared: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, min(count, len(self.images)), 20):
            yield self.images[start : start + 20], self.labels[start : start + 20]


@pytest.mark.parametrize("feature", ["input", "output"])
def test_negatives_are_mined_anew_every_epoch(make_model: Make, loader: Any, feature: str) -> None:
    mining = MiningLoader(loader.images, loader.labels)
    model = make_model()
    first = functional.normalize(getattr(model.eval().embed(loader.images), feature), dim=1)
    model.train()
    weights = LossWeights(contrastive=1.0, tuple_size=4, feature=feature)
    trained(model, mining, weights, epochs=2)
    assert len(mining.given) == 2
    # In batches of another size the last bits may differ.
    assert torch.allclose(mining.given[0], first, atol=1e-6)
    assert not torch.allclose(mining.given[1], first, atol=1e-3)
    assert mining.given[1].norm(dim=1) == pytest.approx(torch.ones(50), abs=1e-5)
