"""A run and its control in one folder: what is written, and that a broken run goes on to the same end."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_experiment import (
    EPOCHS,
    PLAN,
    Killed,
    Loader,
    Pixels,
    assert_same_run,
    evaluate,
    experiment,
    killing,
    log,
    make_network,
    timeless,
)
from torch import Tensor, nn

from reid.data.augmentation.augment import Augmentation
from reid.data.loading.loaders import TrainLoader
from reid.data.loading.samplers import Sampler
from reid.errors import Diverged, InputError, StopSignal
from reid.io.checkpoint import load_checkpoint, save_checkpoint
from reid.losses.objective import LossWeights, Objective
from reid.model.classifiers import MARGINS, MarginLinear
from reid.model.eigenlayer import Eigenlayer
from reid.model.network import ReidNetwork
from reid.model.parametrization import parametrize_weight
from reid.model.pooling import POOLINGS
from reid.ranking import paired_bootstrap
from reid.records import Scores
from reid.svdnet.plan import Plan
from reid.training.optimizer import Solver
from reid.training.schedule import Schedule

Finished = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run that was not interrupted, and its summary; its folder must not be changed."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, experiment(folder).run()


def test_resuming_a_finished_run_never_drops_its_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = experiment(tmp_path).run()
    written = list[dict[str, Any]]()
    monkeypatch.setattr("reid.svdnet.experiment.write_json", lambda path, content: written.append(content))
    assert experiment(tmp_path, resume=True).run() == summary
    assert written == [summary]


def test_what_a_run_leaves_behind(finished: Finished) -> None:
    tmp_path, summary = finished
    assert json.loads((tmp_path / "scores.json").read_text()) == summary
    rows = [(row["run"], row["stage"], row["round"]) for row in summary["rows"]]
    rounds = [(s, r) for r in (1, 2) for s in ("decorrelate", "restraint", "relaxation")]
    rounds += [("decorrelate", 3), ("restraint", 3)]
    assert rows == [("rri", "step0", 0), *(("rri", *x) for x in rounds), *(("control", *x) for x in rounds)]
    assert (summary["rounds"], summary["stopped"], summary["dataset"]) == (2, "max_rounds", "small")
    last = {row["run"]: row for row in summary["rows"]}
    assert summary["final"] in last["rri"]["scores"]
    assert summary["control_final"] in last["control"]["scores"]
    assert {score["flip"] for score in last["rri"]["scores"]} == {False, True}
    names = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    stages = {f"r{r:02d}_{s}" for s, r in rounds}
    stages |= {"last", "previous"}
    assert names == {f"{run}_{s}.pth" for run in ("rri", "control") for s in stages} | {"rri_step0.pth"}
    lines = log(tmp_path)
    assert sum(line["kind"] == "epoch" for line in lines) == EPOCHS + EPOCHS - 3
    stage = next(line for line in lines if line["kind"] == "stage" and line["stage"] == "decorrelate")
    assert {"spectrum_before", "spectrum_after", "cmc", "loss", "correlation", "scores"} <= set(stage)
    assert lines[0] == {"kind": "start"}
    assert all({"kind", "run", "stage", "round", "epoch", "loss", "correlation"} <= set(line) for line in lines[1:4])


def test_the_control_starts_from_step_0(finished: Finished) -> None:
    tmp_path, _ = finished
    step0 = load_checkpoint(tmp_path / "checkpoints" / "rri_step0.pth")["model"]
    control = load_checkpoint(tmp_path / "checkpoints" / "control_r01_decorrelate.pth")["model"]
    assert all(torch.equal(step0[name], control[name]) for name in step0)


def test_the_difference_to_the_control(tmp_path: Path) -> None:
    """Of the two networks that the run and its control end with, in the reported feature."""
    summary = experiment(tmp_path).run()
    per_query = []
    for run in ("rri", "control"):
        model = make_network()
        model.load_state_dict(load_checkpoint(tmp_path / "checkpoints" / f"{run}_last.pth")["model"])
        per_query.append(evaluate(model, last=True)[0].per_query)
    expected = paired_bootstrap(*per_query)
    assert summary["difference"] == dict(zip(("rank1", "mAP", "mINP"), expected.tolist(), strict=True))
    # The rows of a checkpoint hold the scores of every stage, but the single queries of the last one only.
    for run in ("rri", "control"):
        *rows, last = load_checkpoint(tmp_path / "checkpoints" / f"{run}_last.pth")["rows"]
        assert all(score["per_query"] is None for row in rows for score in row["scores"])
        assert sum(score["per_query"] is not None for score in last["scores"]) == 1


def test_no_difference_to_a_run_of_an_earlier_version(tmp_path: Path) -> None:
    """Which kept no values of single queries."""
    with pytest.raises(Killed):
        experiment(tmp_path, score=killing(12, evaluate)).run()
    for path in (tmp_path / "checkpoints").glob("rri_*.pth"):
        content = load_checkpoint(path)
        for score in (score for row in content["rows"] for score in row["scores"]):
            del score["per_query"], score["identities"]
        save_checkpoint(path, content)
    summary = experiment(tmp_path, resume=True).run()
    assert summary["control_final"] is not None and summary["difference"] is None


def test_without_a_control(tmp_path: Path) -> None:
    summary = experiment(tmp_path, control=False).run()
    assert summary["control_final"] is None and summary["difference"] is None
    assert {row["run"] for row in summary["rows"]} == {"rri"}


@pytest.mark.parametrize("after", [2, 5, 10, 12, 16])
def test_a_run_killed_and_resumed_ends_the_same(finished: Finished, tmp_path: Path, after: int) -> None:
    """Killed while evaluating for the `after`-th time, in Step 0, in a round, at the end and in the control."""
    (whole, expected), broken = finished, tmp_path / "broken"
    with pytest.raises(Killed):
        experiment(broken, score=killing(after, evaluate)).run()
    found = experiment(broken, resume=True).run()

    assert timeless(found) == timeless(expected)
    assert_same_run(broken, whole)


class Dying:
    """A loader that ends the process in the middle of its epoch number `after`, counted from 1; 0: never."""

    def __init__(self, loader: Loader | TrainLoader, after: int) -> None:
        self.loader, self.after, self.needs_descriptors = loader, after, loader.needs_descriptors

    def __len__(self) -> int:
        return len(self.loader)

    def sample(self, count: int, seed: int, **shared: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self.loader.sample(count, seed, **shared)

    def batch_paths(self, seed: int, batch: int, descriptors: Tensor | None = None) -> Sequence[str]:
        return self.loader.batch_paths(seed, batch, descriptors)

    def shard_sizes(self, world: int) -> Sequence[int]:
        return self.loader.shard_sizes(world)

    def epoch(
        self, seed: int, descriptors: Tensor | None = None, start: int = 0, **shared: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        self.after -= 1
        for number, batch in enumerate(self.loader.epoch(seed, descriptors, start, **shared)):
            if self.after == 0 and number == 1:
                raise Killed
            yield batch


def sampled(sampler: Sampler) -> TrainLoader:
    images = np.random.default_rng(2).integers(0, 256, (24, 3, 4, 4), dtype=np.uint8)
    labels = np.arange(24, dtype=np.int64) % 3
    half = (0.5, 0.5, 0.5)
    augmentation = Augmentation(half, half, flip=0.5, pad=1, erasing=0.5)
    return TrainLoader(images, labels, 8, augmentation, "cpu", sampler)


def network_with(part: str) -> ReidNetwork:
    torch.manual_seed(0)
    pooling = POOLINGS["netvlad"](6, clusters=2) if part == "netvlad" else POOLINGS["average"](6)
    eigenlayer = Eigenlayer(pooling.width(6), 4, init_std=0.3)
    parametrize_weight(eigenlayer, part if part.endswith("orthogonal") else "none")
    classifier = MarginLinear(4, 3, part, 8.0, 0.3) if part in MARGINS else nn.Linear(4, 3)
    return ReidNetwork(Pixels(), pooling, nn.Identity(), eigenlayer, classifier, 0.3)


LOSSES = {
    "identity sampler": LossWeights(triplet=1.0),
    "mined sampler": LossWeights(contrastive=1.0, tuple_size=4),
    "centre": LossWeights(center=0.1, feature="output"),
    "srip": LossWeights(penalty="srip", penalty_weight=0.1, penalty_steps=((0.5, 0.1),)),
}


@pytest.mark.parametrize(
    "part",
    [*LOSSES, "arcface", "cosface", "netvlad", "orthogonal", "scaled_orthogonal"],
)
def test_a_run_with_any_part_killed_in_an_epoch_ends_the_same(tmp_path: Path, part: str) -> None:
    """Killed in the second epoch of Step 0, again in a later stage, and again in the control."""
    name = part.split()[0]
    loader = sampled(Sampler(name if part.endswith("sampler") else "shuffled"))
    rounds = 0 if part.endswith("orthogonal") else 1
    stage = Schedule(epochs=2, lr=(0.1,))
    changes: dict[str, Any] = {
        "make_network": lambda: network_with(part),
        "make_objective": lambda model: Objective(LOSSES.get(part), num_classes=3, width=4),
        "plan": Plan(stage, stage, stage, solver=Solver(momentum=0.9), max_rounds=rounds, loss_images=10),
        "control": rounds > 0,
        "descriptors": 20,
    }
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    experiment(whole, loader=Dying(loader, 0), **changes).run()
    for number, after in enumerate((2, 4, 4) if rounds else (2,)):
        with pytest.raises(Killed):
            experiment(broken, resume=number > 0, loader=Dying(loader, after), **changes).run()
    experiment(broken, resume=True, loader=Dying(loader, 0), **changes).run()
    assert_same_run(broken, whole)


@pytest.mark.parametrize("after", [2, 8, 11, 13])
def test_stopped_in_the_middle_of_an_epoch_it_saves_and_goes_on(finished: Finished, tmp_path: Path, after: int) -> None:
    (whole, expected), broken = finished, tmp_path / "broken"
    stop, steps = StopSignal(), 0

    class Stopping(Loader):
        def epoch(self, *arguments: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
            nonlocal steps
            for batch in super().epoch(*arguments, **options):
                steps += 1
                if steps == after:
                    stop.receive(15, None)
                yield batch

    with pytest.raises(KeyboardInterrupt):
        experiment(broken, loader=Stopping(), stop=stop).run()
    saved = load_checkpoint(broken / "checkpoints" / "rri_last.pth")
    assert (saved["middle"]["sums"]["batches"] if saved["middle"] else 3) == (after - 1) % 3 + 1
    assert timeless(experiment(broken, resume=True).run()) == timeless(expected)
    assert timeless(log(broken)) == timeless(log(whole))


def test_saved_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    middles = []

    def counted(path: Path, content: dict[str, Any], **options: Any) -> None:
        middles.append(content["middle"])
        save_checkpoint(path, content, **options)

    monkeypatch.setattr("reid.svdnet.experiment.save_checkpoint", counted)
    experiment(tmp_path / "a", control=False).run()
    assert not any(middles)
    experiment(tmp_path / "b", control=False, minutes=1e-9).run()
    # Three batches an epoch: after the first and the second; after the third the epoch itself saves.
    assert sum(bool(middle) for middle in middles) == 2 * EPOCHS


@pytest.mark.parametrize(("run", "alone"), [("rri", False), ("rri", True), ("control", False), ("control", True)])
def test_a_broken_checkpoint_gives_way_to_the_one_before(
    finished: Finished, tmp_path: Path, run: str, alone: bool
) -> None:
    (whole, expected), broken = finished, tmp_path / "broken"
    with pytest.raises(Killed):
        experiment(broken, score=killing({"rri": 6, "control": 12}[run], evaluate)).run()
    path = broken / "checkpoints" / f"{run}_last.pth"
    path.write_bytes(path.read_bytes()[:-300])
    if alone:
        path.with_name(f"{run}_previous.pth").unlink()
    told: list[str] = []
    again = experiment(broken, resume=True, warn=told.append)
    if alone and run == "rri":
        with pytest.raises(InputError, match="rri_last"):
            again.run()
        return
    assert timeless(again.run()) == timeless(expected)
    assert timeless(log(broken)) == timeless(log(whole))
    assert len(told) == 1 and path.name in told[0]


def test_a_broken_end_of_the_original_starts_the_control_again(finished: Finished, tmp_path: Path) -> None:
    (whole, expected), broken = finished, tmp_path / "broken"
    with pytest.raises(Killed):
        experiment(broken, score=killing(12, evaluate)).run()
    assert (broken / "checkpoints" / "control_last.pth").exists()
    (broken / "checkpoints" / "rri_last.pth").write_bytes(b"")
    again = experiment(broken, resume=True, warn=lambda line: None)
    assert timeless(again.run()) == timeless(expected)
    assert timeless(log(broken)) == timeless(log(whole))


def test_a_diverged_training_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    class Bad(Loader):
        def epoch(self, *arguments: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
            for images, labels in super().epoch(*arguments, **options):
                yield images / 0, labels

        def batch_paths(self, seed: int, batch: int, descriptors: Tensor | None = None) -> tuple[str, ...]:
            return ("a.jpg", "b.jpg")

    with pytest.raises(
        Diverged, match=r"images are a\.jpg, b\.jpg; .*last good checkpoint is .*rri_last\.pth"
    ) as caught:
        experiment(tmp_path, loader=Bad()).run()
    assert "at batch 1 of 3" in str(caught.value)
    experiment(tmp_path, resume=True, control=False).run()  # the folder is free again


def test_a_divergence_in_the_last_step_keeps_the_checkpoint_before_it(tmp_path: Path) -> None:
    """The loss of the only batch is finite, and so are the weights after the step, but what they compute is not."""

    class OneBatch(Loader):
        def __len__(self) -> int:
            return 1

        def epoch(self, *arguments: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
            return itertools.islice(super().epoch(*arguments, **options), 1)

    once = dataclasses.replace(PLAN, step0=Schedule(epochs=1, lr=(1e30,)))
    with pytest.raises(Diverged, match=r"rri step0 .* rate was 1e\+30: lower STEP0\.LR .*rri_last\.pth"):
        experiment(tmp_path, loader=OneBatch(), plan=once).run()
    content = load_checkpoint(tmp_path / "checkpoints" / "rri_last.pth")
    assert content["position"]["epoch"] == 0 and all(tensor.abs().max() < 10 for tensor in content["model"].values())
    slower = dataclasses.replace(PLAN, step0=Schedule(epochs=1, lr=(0.1,)))
    experiment(tmp_path, resume=True, loader=OneBatch(), plan=slower, control=False).run()


def test_a_forced_change_stands_in_the_log(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        experiment(tmp_path, score=killing(2, evaluate)).run()
    experiment(tmp_path, resume=True, changes=("SEED was 0, is 1",)).run()
    changed = [line for line in log(tmp_path) if line["kind"] == "changed"]
    assert changed == [{"kind": "changed", "changes": ["SEED was 0, is 1"]}]


def test_the_pooling_starts_from_the_training_set_once(tmp_path: Path) -> None:
    starts: list[torch.Tensor] = []

    def with_vlad() -> ReidNetwork:
        torch.manual_seed(0)
        pooling = POOLINGS["netvlad"](6, clusters=2)
        start = pooling.initialize

        def initialize(descriptors: np.ndarray, *, seed: int) -> None:
            assert descriptors.shape == (20, 6)
            start(descriptors, seed=seed)
            starts.append(pooling.centres.detach().clone())

        pooling.initialize = initialize
        return ReidNetwork(Pixels(), pooling, nn.Identity(), Eigenlayer(12, 4), nn.Linear(4, 3), 0.3)

    changes: dict[str, Any] = {"make_network": with_vlad, "descriptors": 20}
    whole = experiment(tmp_path / "whole", **changes).run()
    assert len(starts) == 1
    broken = tmp_path / "broken"
    with pytest.raises(Killed):
        experiment(broken, score=killing(2, evaluate), **changes).run()
    assert len(starts) == 2 and torch.equal(*starts)
    again = experiment(broken, resume=True, **changes).run()
    assert len(starts) == 2 and again["final"] == whole["final"]


def test_a_finished_run_resumed_trains_nothing(tmp_path: Path) -> None:
    expected = experiment(tmp_path).run()

    class NoTraining(Loader):
        def epoch(
            self, seed: int, descriptors: Tensor | None = None, start: int = 0, **shared: int
        ) -> Iterator[tuple[Tensor, Tensor]]:
            raise AssertionError("trained again")

    assert experiment(tmp_path, resume=True, loader=NoTraining()).run() == expected


def test_step_0_alone_is_evaluated_once(tmp_path: Path) -> None:
    asked = []

    def counting(model: ReidNetwork, last: bool) -> tuple[Scores, ...]:
        asked.append(last)
        return evaluate(model, last)

    plan = dataclasses.replace(PLAN, max_rounds=0, final_restraint=False)
    summary = experiment(tmp_path / "run", score=counting, control=False, plan=plan).run()
    assert asked == [True]
    assert {score["flip"] for score in summary["rows"][0]["scores"]} == {False, True}


def test_a_run_from_the_checkpoint_of_step0_ends_like_the_run_it_comes_from(tmp_path: Path) -> None:
    whole = experiment(tmp_path / "whole").run()
    weights = load_checkpoint(tmp_path / "whole" / "checkpoints" / "rri_step0.pth")["model"]

    def make_trained() -> ReidNetwork:
        network = make_network()
        network.load_state_dict(weights)
        return network

    plan = dataclasses.replace(PLAN, skip_step0=True)
    summary = experiment(tmp_path / "later", make_network=make_trained, plan=plan).run()
    for name in ("rri_last", "control_last", "rri_step0", "rri_r01_restraint"):
        one, other = (load_checkpoint(tmp_path / run / "checkpoints" / f"{name}.pth") for run in ("whole", "later"))
        assert all(torch.equal(tensor, other["model"][key]) for key, tensor in one["model"].items()), name
    assert (summary["final"], summary["control_final"]) == (whole["final"], whole["control_final"])
    assert [row["epochs"] for row in summary["rows"][:2]] == [0, 0]
    again = experiment(tmp_path / "later", make_network=make_trained, plan=plan, resume=True).run()
    assert timeless(again) == timeless(summary)
