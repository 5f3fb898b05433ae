"""What a training holds between two moments, and how it tells others about itself."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from reid.losses.objective import Objective
from reid.model.network import ReidNetwork
from reid.records import Scores, StageLog
from reid.training.epoch import Sums
from reid.training.weight_average import Average, adopt, start_average


class Batches(Protocol):
    """What a stage asks of the training data: see `reid.data.loading.loaders.TrainLoader`."""

    @property
    def needs_descriptors(self) -> bool: ...

    def __len__(self) -> int: ...

    def shard_sizes(self, world: int) -> Sequence[int]: ...

    def epoch(
        self, seed: int, descriptors: Tensor | None = None, start: int = 0, *, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]: ...

    def batch_paths(self, seed: int, batch: int, descriptors: Tensor | None = None) -> Sequence[str]: ...

    def sample(self, count: int, seed: int, *, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Tensor]]: ...


@dataclass
class Middle:
    """How far an epoch came: see `TrainState`. others: the random states of the other processes, in their order."""

    sums: Sums
    random: dict[str, Any]
    descriptors: Tensor | None = None
    others: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class TrainState:
    """Everything a checkpoint must hold of a run.

    objective: what is minimized, with its own state. rows: the finished stages. stage, round, epoch: the unfinished one
    and how many of its epochs are done, with the loss of each, the seconds and images spent, the last rate and the
    optimizer's state. average: the moving average of the weights and the steps it has followed, where the stage keeps
    one. Every epoch is seeded from its own position; one that is broken off holds in `middle` how far it came: the sums
    of its batches, the states of the random generators, and the descriptors that its batches were mined by, which the
    network of the moment no longer gives.
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
    middle: Middle | None = None

    def done(self, stage: str, round: int) -> StageLog | None:
        """The row of a stage, if it is finished."""
        return next((row for row in self.rows if (row.stage, row.round) == (stage, round)), None)

    def begin(self, stage: str, round: int) -> bool:
        """Take up a stage; True where it goes on in the middle, False where it starts afresh."""
        if (self.stage, self.round) == (stage, round) and (self.epoch or self.middle):
            return True
        self.stage, self.round, self.epoch, self.losses = stage, round, 0, []
        self.seconds, self.images, self.lr, self.optimizer = 0.0, 0, 0.0, None
        self.average, self.steps, self.middle = None, 0, None
        return False

    def finish(self, row: StageLog) -> StageLog:
        """Add the row of the stage that has just ended."""
        self.rows.append(row)
        self.begin("", 0)
        return row

    def to_checkpoint(self) -> dict[str, Any]:
        """Tensors and plain values only, so that it loads without a pickle.

        "model" holds what is to be evaluated: the average where there is one, with the weights that train on beside it.
        """
        weights = self.model.state_dict()
        return {
            "model": {**weights, **self.average} if self.average else weights,
            "trained": {name: weights[name] for name in self.average} if self.average else None,
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer,
            "position": {
                key: getattr(self, key)
                for key in ("run", "stage", "round", "epoch", "losses", "seconds", "images", "lr", "steps")
            },
            "middle": {**vars(self.middle), "sums": dataclasses.asdict(self.middle.sums)} if self.middle else None,
            "rows": [_row_to_plain(row) for row in self.rows],
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Take over what `to_checkpoint` gave; the caller has loaded "model" and "objective" into theirs."""
        for key, value in content["position"].items():
            setattr(self, key, value)
        self.optimizer = content["optimizer"]
        middle, trained = content.get("middle"), content.get("trained")
        self.middle = Middle(**{**middle, "sums": Sums(**middle["sums"])}) if middle else None
        self.average = start_average(self.model) if trained else None
        if trained:
            adopt(self.model, trained)
        self.rows = [_row_from_plain(row) for row in content["rows"]]


def _row_to_plain(row: StageLog) -> dict[str, Any]:
    plain = {name: getattr(row, name) for name in row.__dataclass_fields__}
    plain["scores"] = [{name: getattr(s, name) for name in s.__dataclass_fields__} for s in row.scores]
    return plain


def _row_from_plain(plain: dict[str, Any]) -> StageLog:
    scores = tuple(Scores(**{**score, "cmc": tuple(score["cmc"])}) for score in plain["scores"])
    return StageLog(**{**plain, "scores": scores})


@dataclass(frozen=True)
class Hooks:
    """How a run reports. evaluate(model, last): the scores, more of them where `last` says that the run ends here.

    epoch(state, entry) after every epoch and stage(state, row) after every stage: log and save. due(): asked after
    every step of the optimizer, whether to save now, and save(state) does so; it may raise KeyboardInterrupt. held:
    what an epoch stands in, so that a wish to end is kept for `due`.
    """

    evaluate: Callable[[ReidNetwork, bool], tuple[Scores, ...]] = lambda model, last: ()
    epoch: Callable[[TrainState, dict[str, Any]], None] = lambda state, entry: None
    stage: Callable[[TrainState, StageLog], None] = lambda state, row: None
    due: Callable[[], bool] = lambda: False
    save: Callable[[TrainState], None] = lambda state: None
    held: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
