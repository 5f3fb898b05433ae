"""The folder of an experiment: log, checkpoints and `scores.json` of an RRI run and its control."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reid.distributed import all_reduce_max, is_main_process, run_on_main
from reid.errors import Diverged, InputError, StopSignal
from reid.evaluation.retrieval import choose
from reid.io.atomic import write_json
from reid.io.checkpoint import load_checkpoint, load_latest, load_state_dict, save_checkpoint
from reid.losses.objective import Objective
from reid.model.network import ReidNetwork
from reid.records import Scores, StageLog
from reid.svdnet.plan import Plan
from reid.training.callbacks import Callbacks
from reid.training.pooling_init import DESCRIPTORS, initialize_pooling
from reid.training.run_folder import RunFolder
from reid.training.state import Batches, TrainState

MAX_CMC = 50

Scorer = Callable[[ReidNetwork, bool], tuple[Scores, ...]]


@dataclass
class Experiment(Callbacks):
    """Logs, saves, resumes and summarizes an RRI run and its control, as the callbacks of their training.

    Several processes share an experiment; only the first reads and writes the folder, which it alone has opened.

    Attributes:
        folder: The opened folder.
        score: Computes the scores of a network; its second argument says whether the run ends here.
        final: The feature, normalization and flip that `final` in `scores.json` reports.
        checkpoint_metadata: What every checkpoint holds besides the state: "config" and "num_classes".
        dataset: Name of the dataset.
        provenance: Where the run comes from, for the first line of the log.
        changes: Changes of the configuration since the run began, for the log.
        minutes: Minutes between two checkpoints in the middle of an epoch, 0 for none.
        stop: Whether a stop was requested.
        on_stage_logged: Called with the record of every stage.
        warn: Called with a message about each unreadable checkpoint.
    """

    folder: RunFolder
    score: Scorer
    final: dict[str, Any]
    checkpoint_metadata: dict[str, Any]
    dataset: str
    provenance: dict[str, Any]
    changes: tuple[str, ...] = ()
    minutes: float = 0.0
    stop: StopSignal = field(default_factory=StopSignal)
    on_stage_logged: Callable[[StageLog], None] = lambda row: None
    warn: Callable[[str], None] = print
    _checkpoints: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    _original: list[StageLog] = field(default_factory=list, init=False)
    _stopped: str | None = field(default=None, init=False)
    _step0_alone: bool = field(default=False, init=False)
    _saved: float = field(default=0.0, init=False)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Close the folder after the training, and name the last good checkpoint if the training diverged.

        Yields:
            Nothing.

        Raises:
            Diverged: If the training diverged.
            KeyboardInterrupt: If a stop was requested; everything that was trained is saved.
        """
        try:
            yield
        except Diverged as error:
            saved = next((p for p in map(self._last, ("control", "rri")) if p.exists()), None)
            raise Diverged(f"{error}; the last good checkpoint is {saved}" if saved else str(error)) from None
        finally:
            self.folder.close()

    def begin(
        self, model: ReidNetwork, objective: Objective, loader: Batches, plan: Plan, *, descriptors: int = DESCRIPTORS
    ) -> TrainState:
        """Start the RRI run, or resume it from its newest readable checkpoint.

        Args:
            model: The network before Step 0.
            objective: What is minimized.
            loader: The training data.
            plan: The settings of the run.
            descriptors: Largest number of local descriptors that the pooling is initialized from.

        Returns:
            The state to train.

        Raises:
            InputError: If the checkpoints are unreadable or belong to a different run.
        """
        self._step0_alone = not (plan.max_rounds or plan.final_restraint)
        self._checkpoints = run_on_main(self._find_checkpoints)
        if is_main_process():
            self._cut_log()
        state = TrainState("rri", model, objective)
        if "rri" in self._checkpoints:
            self._load(state)
        else:
            initialize_pooling(
                model,
                loader,
                seed=plan.solver.seed,
                norm_statistics=plan.solver.norm_statistics,
                descriptors=descriptors,
            )
            self._write(state, "last")
        self._saved = time.monotonic()
        return state

    def begin_control(self, original: TrainState) -> TrainState:
        """Start the control from the network after Step 0 of the finished run, or resume it.

        Args:
            original: The state of the finished run, whose network is reused.

        Returns:
            The state to train.

        Raises:
            InputError: If the checkpoints are unreadable or belong to a different run.
        """
        self._original = list(original.rows)
        state = TrainState("control", original.model, original.objective)
        if "control" in self._checkpoints:
            self._load(state)
        else:
            path = self.folder.checkpoints / "rri_step0.pth"
            self._load_weights(state, run_on_main(lambda: load_checkpoint(path)), path)
            state.rows = [dataclasses.replace(self._original[0], run="control")]
            self._write(state, "last")
        self._saved = time.monotonic()
        return state

    def finish(self, state: TrainState, stopped: str | None = None) -> dict[str, Any]:
        """Complete the scores of the last stage by the flip test, and write `scores.json`.

        Args:
            state: The state of a finished run.
            stopped: Why the iteration stopped, for the RRI run.

        Returns:
            The content of `scores.json`.
        """
        self._stopped = stopped or self._stopped
        row = state.rows[-1]
        if {score.flip for score in row.scores} != {False, True}:
            state.rows[-1] = dataclasses.replace(row, scores=self.evaluate(state.model, last=True))
            self._log({"kind": "final", "run": state.run, "scores": state.rows[-1].to_json()["scores"]})
            self._write(state, "last")
        return self._summarize(state)

    def evaluate(self, model: ReidNetwork, last: bool = False) -> tuple[Scores, ...]:
        """See `Callbacks.evaluate`. Step 0 alone is the last stage too: its images are embedded once.

        Args:
            model: The network.
            last: Whether the run ends here.

        Returns:
            The scores.
        """
        return self.score(model, last or self._step0_alone)

    def should_save(self, state: TrainState) -> bool:
        """See `Callbacks.should_save`: after `minutes`, and when a stop was requested from any process.

        Args:
            state: The state of the training.

        Returns:
            Whether to save now.
        """
        return self._agree(self.minutes > 0 and time.monotonic() - self._saved >= 60 * self.minutes)

    def save(self, state: TrainState) -> None:
        """Write the newest checkpoint, and stop where a stop was requested.

        Args:
            state: The state of the training.

        Raises:
            KeyboardInterrupt: If a stop was requested.
        """
        self._write(state, "last")
        self._saved = time.monotonic()
        self._agree()
        self.stop.check()

    def on_epoch_end(self, state: TrainState, entry: dict[str, Any]) -> None:
        """Log and save.

        Args:
            state: The state after the epoch.
            entry: The line for the log.
        """
        self._log(entry)
        self.save(state)

    def on_stage_end(self, state: TrainState, row: StageLog) -> None:
        """Log, save and summarize.

        Args:
            state: The state after the stage.
            row: Its record.
        """
        cmc = {f"{s.feature}{'_normalized' if s.normalized else ''}": list(s.cmc[:MAX_CMC]) for s in row.scores}
        with self.stop.held():
            self._log({"kind": "stage", "epoch": row.epochs, "loss": row.train_loss, **row.to_json(), "cmc": cmc})
            self._write(state, row.stage if row.round == 0 else f"r{row.round:02d}_{row.stage}")
            self._write(state, "last")
            self._summarize(state)
            self.on_stage_logged(row)
            self._agree()

    def hold_signals(self) -> contextlib.AbstractContextManager[None]:
        """See `Callbacks.hold_signals`.

        Returns:
            The context manager.
        """
        return self.stop.held()

    def _last(self, run: str) -> Path:
        return self.folder.checkpoints / f"{run}_last.pth"

    def _previous(self, run: str) -> Path:
        return self.folder.checkpoints / f"{run}_previous.pth"

    def _find_checkpoints(self) -> dict[str, dict[str, Any]]:
        """The newest readable checkpoint of each run."""
        warnings: list[str] = []
        found = {}
        for run in ("rri", "control"):
            if warnings and run == "control":
                # The control started from what the unreadable checkpoint held, and starts again.
                for path in (self._last(run), self._previous(run)):
                    path.unlink(missing_ok=True)
            try:
                content = load_latest(self._last(run), self._previous(run), warnings.append)
            except InputError as error:
                if run == "rri":
                    raise
                warnings.append(f"{error}; starting the control again")
                self._last(run).unlink(missing_ok=True)
                content = None
            if content is not None:
                found[run] = content
        for message in warnings:
            self.warn(message)
        return found

    def _cut_log(self) -> None:
        """Cut the log back to the checkpoint that the run is resumed from, or start it."""
        newest = self._checkpoints.get("control") or self._checkpoints.get("rri")
        self.folder.cut_log(newest["log_lines"] if newest else 0)
        if not newest:
            self.folder.log({"kind": "start", **self.provenance})
        if newest and self.changes:
            self.folder.log({"kind": "changed", "changes": list(self.changes)})

    def _load(self, state: TrainState) -> None:
        content, path = self._checkpoints.pop(state.run), self._last(state.run)
        try:
            self._load_weights(state, content, path)
            state.restore(content)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: the checkpoint belongs to a different run ({type(error).__name__})") from None

    def _load_weights(self, state: TrainState, content: dict[str, Any], path: Path) -> None:
        load_state_dict(state.model, content["model"], network="this run", source=str(path))
        # A checkpoint of an earlier version holds no objective; the identity loss it trained with has no state.
        state.objective.load_state_dict(content.get("objective", {}))

    def _agree(self, due: bool = False) -> bool:
        """Whether any process has a stop request or is due to save: then all save, and stop, at the same step."""
        found = all_reduce_max(2 if self.stop.requested else int(due))
        if found == 2:
            self.stop.requested = True
        return found > 0

    def _log(self, entry: dict[str, Any]) -> None:
        if is_main_process():
            self.folder.log(entry)

    def _write(self, state: TrainState, name: str) -> None:
        if not is_main_process():
            return
        content = {**self.checkpoint_metadata, **state.to_checkpoint(), "log_lines": self.folder.log_length()}
        previous = self._previous(state.run) if name == "last" else None
        save_checkpoint(self.folder.checkpoints / f"{state.run}_{name}.pth", content, previous=previous)

    def _summarize(self, state: TrainState) -> dict[str, Any]:
        """Write `scores.json`; until RRI has ended, `stopped` is None and `final` is its last row so far."""
        rows, control = (state.rows, []) if state.run == "rri" else (self._original, state.rows)
        summary = {
            "dataset": self.dataset,
            "rows": [row.to_json() for row in (*rows, *control[1:])],
            "final": choose(rows[-1].scores, **self.final).to_json(),
            "control_final": choose(control[-1].scores, **self.final).to_json() if control else None,
            "rounds": max((row.round for row in rows if row.stage == "relaxation"), default=0),
            "stopped": self._stopped,
        }
        if is_main_process():
            write_json(self.folder.path / "scores.json", summary)
        return summary
