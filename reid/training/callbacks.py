"""What a training calls while it runs."""

from __future__ import annotations

import contextlib
from typing import Any

from reid.data.loading.loaders import TrainLoader
from reid.model.network import ReidNetwork
from reid.records import Scores, StageLog
from reid.training.optimizer import Solver
from reid.training.state import TrainState


class Callbacks:
    """Reporting, evaluating and saving, as methods that do nothing; override what is needed.

    `reid.svdnet.experiment.Experiment` is the implementation behind `svdnet train`.
    """

    def evaluate(self, model: ReidNetwork, last: bool = False) -> tuple[Scores, ...]:
        """Compute the retrieval scores of a network, at the end of every stage.

        Args:
            model: The network, in any mode; the mode must be restored.
            last: Whether this is known to be the last evaluation of a run, for which more scores may be computed.

        Returns:
            The scores, one record per feature and variant.
        """
        return ()

    def on_epoch_begin(self, state: TrainState, loader: TrainLoader, solver: Solver) -> None:
        """Called before an epoch, or the rest of one that was interrupted.

        Args:
            state: The state of the training.
            loader: The training data.
            solver: The settings of the steps.
        """

    def on_phase_end(self, phase: str) -> None:
        """Called at the end of each phase of a step.

        Args:
            phase: "rest" (between two steps), "data", "forward", "backward" or "optimizer".
        """

    def on_step(self, state: TrainState) -> None:
        """Called after every step of the optimizer.

        Args:
            state: The state of the training.
        """

    def should_save(self, state: TrainState) -> bool:
        """Called after every step of the optimizer, to decide whether to save in the middle of the epoch.

        Args:
            state: The state of the training.

        Returns:
            Whether `save` is to be called now.
        """
        return False

    def save(self, state: TrainState) -> None:
        """Save a checkpoint in the middle of an epoch.

        Args:
            state: The state, complete with the progress of the epoch.

        Raises:
            KeyboardInterrupt: If the training was asked to stop.
        """

    def on_epoch_end(self, state: TrainState, entry: dict[str, Any]) -> None:
        """Log an epoch and save.

        Args:
            state: The state after the epoch.
            entry: The line for `log.jsonl`.
        """

    def on_stage_end(self, state: TrainState, row: StageLog) -> None:
        """Log a stage and save.

        Args:
            state: The state after the stage.
            row: The record of the stage, the last of `state.rows`.
        """

    def hold_signals(self) -> contextlib.AbstractContextManager[None]:
        """Make the context an epoch runs in, in which a stop request waits for `should_save`.

        Returns:
            The context manager.
        """
        return contextlib.nullcontext()
