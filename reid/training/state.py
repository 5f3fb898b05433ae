"""The state of a training: everything that a checkpoint must hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid.io.checkpoint import check_state_dict
from reid.losses.objective import Objective
from reid.model.network import ReidNetwork
from reid.records import Scores, StageLog
from reid.training.weight_average import Average, load_average, start_average

_OF_QUERIES = ("per_query", "identities")  # the arrays of `Scores`


@dataclass
class EpochProgress:
    """How far an epoch has come.

    Attributes:
        batches: Finished batches, skipped ones included.
        images: Images in the batches that were used.
        loss: Sum of the loss over these images.
        parts: The same for each weighted term of the loss, empty where there is only one.
        skipped: Batches that were left out because of a loss or gradient that is not finite.
        lr: Last learning rate of the first parameter group.
        seconds: Wall-clock time spent.
        random_states: States of the random generators of each process, set when the epoch is saved.
        descriptors: (N, D) float32 descriptors that the batches of the epoch were mined by, set when it is saved: the
            network as it is then no longer gives them.
    """

    batches: int = 0
    images: int = 0
    loss: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    lr: float = 0.0
    seconds: float = 0.0
    random_states: list[dict[str, Any]] = field(default_factory=list)
    descriptors: Tensor | None = None

    def sums(self) -> dict[str, Any]:
        """Return the counts and sums as plain values.

        Returns:
            The values of the attributes from `batches` to `seconds`, by name.
        """
        names = ("batches", "images", "loss", "parts", "skipped", "lr", "seconds")
        return {name: getattr(self, name) for name in names} | {"parts": dict(self.parts)}

    def to_checkpoint(self) -> dict[str, Any]:
        """Convert to the plain values and tensors of a checkpoint.

        Returns:
            The content of "middle" in a checkpoint.
        """
        first, *others = self.random_states
        return {"sums": self.sums(), "random": first, "descriptors": self.descriptors, "others": others}

    @classmethod
    def from_checkpoint(cls, content: dict[str, Any]) -> EpochProgress:
        """Restore what `to_checkpoint` returned.

        Args:
            content: "middle" of a checkpoint.

        Returns:
            The progress.
        """
        random_states = [content["random"], *content["others"]]
        return cls(**content["sums"], random_states=random_states, descriptors=content["descriptors"])


@dataclass(frozen=True)
class ThreadChange:
    """From where on a training on a CPU uses a number of threads, which decides the last bits of its sums.

    Attributes:
        stage: Name of the stage.
        round: Its round.
        epoch: Finished epochs of the stage at the change.
        count: Number of PyTorch's threads.
    """

    stage: str
    round: int
    epoch: int
    count: int


@dataclass
class TrainState:
    """Everything a checkpoint must hold of a run.

    Every epoch is seeded from its own position, so that nothing else of the past matters.

    Attributes:
        run: "rri" or "control".
        model: The network.
        objective: What is minimized, with its own state.
        rows: The finished stages.
        stage: Name of the unfinished stage, "" between two stages.
        round: Round of the unfinished stage.
        epoch: Finished epochs of the stage.
        losses: Mean training loss of each of them.
        seconds: Training time of the stage.
        images: Images the stage has trained on.
        lr: Last learning rate.
        optimizer: State dict of the optimizer, at the last save.
        average: Moving average of the weights, where the stage keeps one.
        steps: Steps of the optimizer in this stage.
        fused: Whether the run began with a step of the optimizer that is one kernel, which rounds differently.
        progress: How far an epoch has come that was interrupted.
        rates: Images per second of each finished epoch of the stage.
        threads: The numbers of threads of the run, the last of which is in use; empty where nothing sets them.
    """

    run: str
    model: ReidNetwork
    objective: Objective = field(default_factory=Objective)
    rows: list[StageLog] = field(default_factory=list)
    stage: str = ""
    round: int = 0
    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0
    lr: float = 0.0
    optimizer: dict[str, Any] | None = None
    average: Average | None = None
    steps: int = 0
    fused: bool = True
    progress: EpochProgress | None = None
    rates: list[float] = field(default_factory=list)
    threads: list[ThreadChange] = field(default_factory=list)

    def done(self, stage: str, round: int) -> StageLog | None:
        """Look up a finished stage.

        Args:
            stage: Its name.
            round: Its round.

        Returns:
            Its row, or None if it is not finished.
        """
        return next((row for row in self.rows if (row.stage, row.round) == (stage, round)), None)

    def begin(self, stage: str, round: int) -> bool:
        """Begin a stage, or continue the unfinished one.

        Args:
            stage: Name of the stage.
            round: Its round.

        Returns:
            True where the stage continues, False where it starts.
        """
        if (self.stage, self.round) == (stage, round) and (self.epoch or self.progress):
            return True
        self.stage, self.round, self.epoch, self.losses = stage, round, 0, []
        self.seconds, self.images, self.lr, self.optimizer = 0.0, 0, 0.0, None
        self.average, self.steps, self.progress, self.rates = None, 0, None, []
        return False

    def finish(self, row: StageLog) -> None:
        """Add the row of the stage that has just ended.

        Args:
            row: The record of the stage.
        """
        self.rows.append(row)
        self.begin("", 0)

    def finish_epoch(self, progress: EpochProgress, optimizer: dict[str, Any]) -> None:
        """Add an epoch to the stage.

        Args:
            progress: The finished epoch.
            optimizer: State dict of the optimizer.
        """
        self.epoch += 1
        self.progress = None
        self.losses.append(progress.loss / progress.images)
        self.rates.append(progress.images / progress.seconds)
        self.seconds += progress.seconds
        self.images += progress.images
        self.lr = progress.lr
        self.optimizer = optimizer

    def to_checkpoint(self) -> dict[str, Any]:
        """Convert to tensors and plain values, which load without a pickle.

        Returns:
            A dict whose "model" holds what is to be evaluated: the average where there is one, with the weights that
            training continues from in "trained".
        """
        weights = self.model.state_dict()
        return {
            "model": {**weights, **self.average} if self.average else weights,
            "trained": {name: weights[name] for name in self.average} if self.average else None,
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer,
            "position": {
                key: getattr(self, key)
                for key in ("run", "stage", "round", "epoch", "losses", "seconds", "images", "lr", "steps", "fused")
            },
            "middle": self.progress.to_checkpoint() if self.progress else None,
            "threads": {"changes": [vars(change) for change in self.threads], "images_per_second": self.rates},
            "rows": [_row_to_plain(row) for row in self.rows],
        }

    def restore(self, content: dict[str, Any], source: str = "the checkpoint") -> None:
        """Restore what `to_checkpoint` returned.

        Args:
            content: A checkpoint that `check_training_content` accepts; its "model" and "objective" are loaded already.
            source: Name of the checkpoint in error messages.

        Raises:
            InputError: If the weights that training continues from are not those of the network.
        """
        # Earlier versions did not save it, and used one kernel on GPUs only.
        self.fused = self.model.eigenlayer.vectors.device.type == "cuda"
        for key, value in content["position"].items():
            setattr(self, key, value)
        self.optimizer = content["optimizer"]
        threads = content.get("threads") or {"changes": [], "images_per_second": []}
        self.threads = [ThreadChange(**change) for change in threads["changes"]]
        self.rates = list(threads["images_per_second"])
        progress, trained = content.get("middle"), content.get("trained")
        self.progress = EpochProgress.from_checkpoint(progress) if progress else None
        self.average = start_average(self.model) if trained else None
        if trained:
            check_state_dict(self.average or {}, trained, network="this run", source=source)
            load_average(self.model, trained)
        self.rows = [_row_from_plain(row) for row in content["rows"]]


def _row_to_plain(row: StageLog) -> dict[str, Any]:
    plain = {name: getattr(row, name) for name in row.__dataclass_fields__}
    plain["scores"] = [{name: getattr(s, name) for name in s.__dataclass_fields__} for s in row.scores]
    for score in plain["scores"]:
        for name in _OF_QUERIES:
            if score[name] is not None:
                score[name] = torch.from_numpy(score[name])
    return plain


def _row_from_plain(plain: dict[str, Any]) -> StageLog:
    scores = tuple(
        Scores(**{**score, "cmc": tuple(score["cmc"]), **{name: _as_array(score.get(name)) for name in _OF_QUERIES}})
        for score in plain["scores"]
    )
    return StageLog(**{**plain, "scores": scores})


def _as_array(values: Tensor | None) -> np.ndarray | None:
    return None if values is None else values.numpy()
