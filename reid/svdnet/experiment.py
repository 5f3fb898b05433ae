"""The folder of an experiment: log, checkpoints and `scores.json` of an RRI run and its control."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from reid.data.loading.loaders import TrainLoader
from reid.distributed import all_reduce_max, is_main_process, run_on_main
from reid.errors import Diverged, InputError, StopSignal
from reid.io.atomic import write_json
from reid.io.checkpoint import check_state_dict, load_checkpoint, load_state_dict, save_checkpoint
from reid.losses.objective import Objective
from reid.model.network import ReidNetwork
from reid.records import Scores, StageLog
from reid.svdnet import step0
from reid.svdnet.plan import Plan
from reid.svdnet.run_checkpoints import find_checkpoints, last_path, previous_path
from reid.svdnet.summary import summarize
from reid.training.callbacks import Callbacks
from reid.training.optimizer import Solver
from reid.training.provenance import ARITHMETIC, arithmetic_changes, logged_arithmetic
from reid.training.run_folder import RunFolder
from reid.training.state import ThreadChange, TrainState
from reid.training.threads import RecordedThreads, ThreadChooser, recorded_count, same_thread_count, timed_step

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
        provenance: Where the run comes from, for the first line of the log, and to tell whether a resumed run can end
            bit-identical to an uninterrupted one.
        changes: Changes of configuration and images since the run began, for the log.
        minutes: Minutes between two checkpoints in the middle of an epoch, 0 for none.
        stop: Whether a stop was requested.
        on_progress: Called with the state when the run or its control starts or resumes, and after every epoch and
            stage.
        notes: Further entries of `scores.json`, which `score` may change.
        warn: Called with one line about each thing that is not as the run left it, such as an unreadable checkpoint.
        threads: Sets the number of threads; None leaves it as it is.
        trained: Whether a stage has ended since the run was started or resumed.
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
    on_progress: Callable[[TrainState], None] = lambda state: None
    notes: dict[str, Any] = field(default_factory=dict)
    warn: Callable[[str], None] = print
    threads: ThreadChooser | None = None
    trained: bool = field(default=False, init=False)
    _checkpoints: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    _started: bool = field(default=False, init=False)
    _timing: dict[str, Any] | None = field(default=None, init=False)
    _original: list[StageLog] = field(default_factory=list, init=False)
    _stopped: str | None = field(default=None, init=False)
    _step0_alone: bool = field(default=False, init=False)
    _step0: Callable[[], TrainState] | None = field(default=None, init=False)
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
            saved = next((p for p in (last_path(self.folder, run) for run in ("control", "rri")) if p.exists()), None)
            raise Diverged(f"{error}; the last good checkpoint is {saved}" if saved else str(error)) from None
        finally:
            self.folder.close()

    def start(self, model: ReidNetwork, objective: Objective, loader: TrainLoader, plan: Plan) -> None:
        """Find the checkpoints to resume from, and set the number of threads; `begin` does it where it is left out.

        Args:
            model: The network before Step 0.
            objective: What is minimized.
            loader: The training data.
            plan: The settings of the run.

        Raises:
            InputError: If the checkpoints are unreadable or belong to a different run.
        """
        self._checkpoints = found = run_on_main(lambda: find_checkpoints(self.folder, self.warn))
        self._started = True
        if self.threads is None:
            return
        if found:
            self.threads.resume(recorded_count(found.get("control")) or recorded_count(found.get("rri")))
        else:
            step = functools.partial(timed_step, TrainState("rri", model, objective), loader, plan.solver)
            self._timing = self.threads.start(step, plan.least_epochs * len(loader))
        machine = {**self.provenance.get("machine", {}), "threads": torch.get_num_threads()}
        self.provenance = {**self.provenance, "machine": machine}

    def begin(
        self, model: ReidNetwork, objective: Objective, loader: TrainLoader, plan: Plan, *, descriptors: int
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
        if not self._started:
            self.start(model, objective, loader, plan)
        if is_main_process():
            self._cut_log()
        state = TrainState("rri", model, objective)
        start = functools.partial(step0.prepare, loader=loader, plan=plan, descriptors=descriptors)
        if "rri" in self._checkpoints:
            lacks_step0 = run_on_main(lambda: self._lacks_step0(model))
            fresh = TrainState("rri", copy.deepcopy(model), copy.deepcopy(objective)) if lacks_step0 else None
            self._load(state)
            if fresh:
                fresh.fused = state.fused
                threads = RecordedThreads(tuple(state.threads))
                self._step0 = functools.partial(step0.repeat, fresh, start, loader, plan, threads)
        else:
            start(model)
            if self.threads:
                state.threads.append(ThreadChange("step0", 0, 0, torch.get_num_threads()))
            self._write(state, "last")
        self._saved = time.monotonic()
        self.on_progress(state)
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
        state = TrainState("control", original.model, original.objective, fused=original.fused)
        if "control" in self._checkpoints:
            self._load(state)
        else:
            self._load_step0(state)
            state.rows = [dataclasses.replace(self._original[0], run="control")]
            self._write(state, "last")
        self._saved = time.monotonic()
        self.on_progress(state)
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
            The scores. Only `final` of the last stage keeps the values of every query, for its difference to the
            control: a checkpoint holds the scores of all stages.
        """
        last = last or self._step0_alone
        return tuple(
            one if last and self.final.items() <= vars(one).items() else one.without_queries()
            for one in self.score(model, last)
        )

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

    def on_epoch_begin(self, state: TrainState, loader: TrainLoader, solver: Solver) -> None:
        """Choose the number of threads again where that is due.

        Args:
            state: The state of the training.
            loader: The training data.
            solver: The settings of the steps.
        """
        step = functools.partial(timed_step, state, loader, solver)
        change = self.threads.next_epoch(state, step) if self.threads else None
        if change:
            where = {"run": state.run, "stage": state.stage, "round": state.round, "epoch": state.epoch}
            self._log({**change, **where})
            self.warn(f"threads: {change['threads']} instead of {change['before']}, which is faster now")

    def on_epoch_end(self, state: TrainState, entry: dict[str, Any]) -> None:
        """Log and save.

        Args:
            state: The state after the epoch.
            entry: The line for the log.
        """
        self._log(entry)
        self.save(state)
        self.on_progress(state)

    def on_stage_end(self, state: TrainState, row: StageLog) -> None:
        """Log, save and summarize.

        Args:
            state: The state after the stage.
            row: Its record.
        """
        self.trained = True
        cmc = {f"{s.feature}{'_normalized' if s.normalized else ''}": list(s.cmc[:MAX_CMC]) for s in row.scores}
        with self.stop.held():
            self._log({"kind": "stage", "epoch": row.epochs, "loss": row.train_loss, **row.to_json(), "cmc": cmc})
            self._write(state, row.stage if row.round == 0 else f"r{row.round:02d}_{row.stage}")
            self._write(state, "last")
            self._summarize(state)
            self.on_progress(state)
            self._agree()

    def hold_signals(self) -> contextlib.AbstractContextManager[None]:
        """Return what defers a request to stop, see `Callbacks.hold_signals`."""
        return self.stop.held()

    @property
    def _step0_path(self) -> Path:
        return self.folder.checkpoints / "rri_step0.pth"

    def _cut_log(self) -> None:
        """Cut the log back to the checkpoint that the run is resumed from, or start it."""
        newest = max(self._checkpoints.values(), key=lambda content: content["log_lines"], default=None)
        if newest is None:
            self.folder.start_log()
            self.folder.log({"kind": "start", **self.provenance})
            if self._timing:
                self.folder.log(self._timing)
            return
        for note in self.folder.cut_log(newest["log_lines"], newest.get("log_sha256")):
            self.warn(note)
        moved = arithmetic_changes(logged_arithmetic(self.folder.log_entries()), self.provenance)
        if moved:
            what = "the run need not end bit-identical to one that was not interrupted"
            self.warn(f"resuming with {'; '.join(moved)}: {what}")
        if self.changes or moved:
            now = {name: self.provenance[name] for name in ARITHMETIC if name in self.provenance} if moved else {}
            self.folder.log({"kind": "changed", "changes": [*self.changes, *moved], **now})

    def _load(self, state: TrainState) -> None:
        content, path = self._checkpoints.pop(state.run), last_path(self.folder, state.run)
        self._load_weights(state, content, path)
        state.restore(content, str(path))

    def _lacks_step0(self, model: ReidNetwork) -> bool:
        """Whether the network after Step 0, with which the control starts, is not where the finished Step 0 left it."""
        if "control" in self._checkpoints or not self._checkpoints["rri"]["rows"]:
            return False
        try:
            weights = load_checkpoint(self._step0_path)["model"]
            check_state_dict(model.state_dict(), weights, network="this run", source=str(self._step0_path))
        except InputError as error:
            self.warn(f"{error}; a control will train Step 0 again")
            return True
        return False

    def _load_step0(self, state: TrainState) -> None:
        """Load the network after Step 0, or train it again where `begin` has found its checkpoint unreadable."""
        if self._step0 is None:
            try:
                content = run_on_main(lambda: load_checkpoint(self._step0_path))
            except InputError as error:
                raise InputError(f"{error}; with --resume the control trains Step 0 again") from None
            self._load_weights(state, content, self._step0_path)
            return
        with same_thread_count():
            again = self._step0()
        found, expected = again.rows[0], self._original[0]
        if (found.train_loss, found.correlation) != (expected.train_loss, expected.correlation):
            raise InputError(
                f"{self._step0_path} is unreadable, and Step 0 trained again ended with loss {found.train_loss}, not "
                f"{expected.train_loss}, perhaps because machine, versions or threads changed; restore the "
                "file, or train the whole run again in another OUTPUT_DIR"
            )
        state.model.load_state_dict(again.model.state_dict())
        state.objective.load_state_dict(again.objective.state_dict())
        self._write(dataclasses.replace(again, rows=[expected]), "step0")

    def _load_weights(self, state: TrainState, content: dict[str, Any], path: Path) -> None:
        load_state_dict(state.model, content["model"], network="this run", source=str(path))
        # A checkpoint of an earlier version holds no objective; the identity loss it trained with has no state.
        objective = content.get("objective", {})
        load_state_dict(state.objective, objective, network="the losses of this run", source=str(path))

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
        self.folder.check_ours()
        content = {**self.checkpoint_metadata, **state.to_checkpoint(), **self.folder.log_position()}
        previous = previous_path(self.folder, state.run) if name == "last" else None
        save_checkpoint(self.folder.checkpoints / f"{state.run}_{name}.pth", content, previous=previous)

    def _summarize(self, state: TrainState) -> dict[str, Any]:
        """Write `scores.json`."""
        rows, control = (state.rows, []) if state.run == "rri" else (self._original, state.rows)
        summary = summarize(rows, control, dataset=self.dataset, final=self.final, stopped=self._stopped) | self.notes
        # A control that was begun is in the file already, and is resumed next.
        if is_main_process() and not (state.run == "rri" and "control" in self._checkpoints):
            self.folder.check_ours()
            write_json(self.folder.path / "scores.json", summary)
        return summary
