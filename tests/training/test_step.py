"""A step and an epoch of them: accumulation, clipping, losses read now and then, and losses that are no numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from reid.errors import Diverged
from reid.losses.objective import LossWeights, Objective
from reid.model.network import ReidNetwork
from reid.svdnet import step0
from reid.training.epoch import EpochResult, Watch, train_epoch
from reid.training.optimizer import Solver, make_optimizer
from reid.training.schedule import Schedule
from reid.training.state import Hooks, TrainState
from reid.training.step import tf32_products, train_step

Make = Callable[[], ReidNetwork]
PLAIN = Solver(momentum=0.0, weight_decay=0.0)


def weights(model: ReidNetwork) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def stepped(model: ReidNetwork, batches: list[Any], lr: float = 0.1, solver: Solver = PLAIN, **options: Any) -> Any:
    optimizer = make_optimizer(model, solver, lr)
    return train_step(model, batches, len(batches), optimizer=optimizer, objective=Objective(), **options)


def test_two_half_batches_are_one_whole(make_model: Make, loader: Any) -> None:
    whole, halves = make_model().eval(), make_model().eval()  # no dropout, and statistics that stay
    images, labels = loader.images[:20], loader.labels[:20]
    stepped(whole, [(images, labels)])
    losses = stepped(halves, [(images[:10], labels[:10]), (images[10:], labels[10:])])
    assert [loss.images for loss in losses] == [10, 10]
    start = make_model().state_dict()
    for name, tensor in whole.named_parameters():
        assert torch.allclose(tensor, halves.state_dict()[name], atol=1e-6), name
        assert not torch.equal(tensor, start[name]), name


def test_a_clipped_step_is_as_long_as_its_limit(make_model: Make, loader: Any) -> None:
    def length(clip: float) -> float:
        model = make_model()
        before = weights(model)
        stepped(model, [(loader.images, loader.labels)], clip=clip)
        return sum(float((p.detach() - before[n]).square().sum()) for n, p in model.named_parameters()) ** 0.5

    free = length(0.0)
    assert length(free / 0.1 / 4) == pytest.approx(free / 4, rel=1e-4)
    assert length(10 * free / 0.1) == free


def test_a_skipped_batch_leaves_nothing_behind(make_model: Make, loader: Any) -> None:
    model, alone = make_model().train(), make_model().train()
    before = weights(model)
    bad = loader.images[:10].clone()
    bad[3] = float("nan")
    (loss,) = stepped(model, [(bad, loader.labels[:10])], skip=True)
    assert not loss.used
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    # Beside a good one: the step is that of the good one, at its share of the mean.
    model.dropout.p = alone.dropout.p = 0.0
    good = (loader.images[10:20], loader.labels[10:20])
    used = [loss.used for loss in stepped(model, [(bad, loader.labels[:10]), good], lr=0.2, skip=True)]
    stepped(alone, [good], lr=0.1)
    assert used == [False, True]
    for name, tensor in alone.state_dict().items():
        assert torch.allclose(tensor, model.state_dict()[name], atol=1e-6), name


def test_a_gradient_that_is_no_number_skips_the_step(make_model: Make, loader: Any) -> None:
    model = make_model()
    before = weights(model)
    model.eigenlayer.weight.register_hook(lambda grad: grad * float("inf"))
    (loss,) = stepped(model, [(loader.images, loader.labels)], skip=True)
    assert not loss.used
    # Running statistics too.
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_fused_is_the_same_step(make_model: Make, loader: Any, optimizer: str) -> None:
    ends = []
    for fused in (False, True):
        model = make_model().eval()
        solver = Solver(optimizer=optimizer, fused=fused)
        made = make_optimizer(model, solver, 0.01)
        for _ in range(3):
            train_step(model, [(loader.images, loader.labels)], 1, optimizer=made, objective=Objective())
        ends.append(weights(model))
    assert all(torch.allclose(tensor, ends[1][name], atol=1e-6) for name, tensor in ends[0].items())


def test_tf32_holds_inside_only() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    with tf32_products(True):
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before
    with tf32_products(False):
        assert torch.backends.cuda.matmul.allow_tf32 == before


def epoch(model: ReidNetwork, loader: Any, **options: Any) -> EpochResult:
    torch.manual_seed(5)
    optimizer = make_optimizer(model.train(), PLAIN, 0.05)
    given = {"objective": Objective(LossWeights(center=0.1), classes=5, width=12), **options}
    return train_epoch(model, loader.epoch(1), count=len(loader), optimizer=optimizer, factor=lambda part: 1.0, **given)


def test_when_the_loss_is_read_changes_nothing(make_model: Make, loader: Any) -> None:
    often, seldom = (dataclasses.replace(epoch(make_model(), loader, read_every=n), seconds=0) for n in (1, 4))
    assert often == seldom
    assert set(often.parts) == {"identity", "center"}
    assert often.images == 50


@pytest.mark.parametrize("read_every", [1, 4])
def test_a_loss_that_is_no_number_is_named_before_anything_is_saved(
    make_model: Make, loader: Any, read_every: int
) -> None:
    saved: list[int] = []
    watch = Watch(
        due=lambda: len(saved) < 2,
        save=lambda sums: saved.append(sums.batches),
        names=lambda batch: loader.batch_paths(1, batch),
    )
    third = loader.batch_paths(1, 2)
    loader.images[int(third[7].removesuffix(".jpg"))] = float("inf")
    with pytest.raises(Diverged) as caught:
        epoch(make_model(), loader, read_every=read_every, watch=watch, title="rri step0")
    message = str(caught.value)
    assert "at batch 3 of 5" in message
    assert f"whose 10 images are {', '.join(third[:3])}, ..." in message
    assert saved == [1, 2]


def test_skipped_batches_are_counted_in_the_log(make_model: Make, loader: Any) -> None:
    loader.images[7] = float("inf")
    entries: list[dict[str, Any]] = []
    state = TrainState("rri", make_model())
    solver, schedule = Solver(nonfinite="skip"), Schedule(epochs=2, lr=(0.05,))
    row = step0.run(state, loader, schedule=schedule, solver=solver, hooks=Hooks(epoch=lambda s, e: entries.append(e)))
    assert [entry["skipped"] for entry in entries] == [1, 1]
    assert row.train_loss > 0
    loader.images[:] = float("inf")
    with pytest.raises(Diverged, match="every one of the 5 batches was skipped"):
        step0.run(TrainState("rri", make_model()), loader, schedule=schedule, solver=solver, hooks=Hooks())


def test_fewer_batches_than_promised(make_model: Make, loader: Any) -> None:
    model = make_model()
    optimizer = make_optimizer(model, PLAIN, 0.1)
    with pytest.raises(ValueError, match="5 batches were promised, 4 came"):
        train_epoch(
            model, loader.epoch(1, start=1), count=5, optimizer=optimizer, factor=lambda part: 1.0,
            objective=Objective(),
        )  # fmt: skip
