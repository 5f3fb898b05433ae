"""A run from its folder's point of view: train, log, save, go on, and sum up in `scores.json`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reid.distributed import all_reduce_max, barrier, broadcast, get_rank, get_world_size, is_main_process, run_on_main
from reid.errors import Diverged, InputError, StopSignal
from reid.evaluation.retrieval import choose
from reid.io.atomic import write_json
from reid.io.checkpoint import load_checkpoint, load_latest, load_state_dict, save_checkpoint
from reid.losses.objective import Objective
from reid.model.network import ReidNetwork
from reid.records import Scores, Split, StageLog
from reid.svdnet import rri
from reid.svdnet.rri import Plan
from reid.training.pooling_init import DESCRIPTORS, initialize_pooling
from reid.training.run_folder import RunFolder, changes
from reid.training.seeding import seed_from
from reid.training.state import Batches, Hooks, TrainState

MAX_CMC = 50


def check_alike(config_text: str, data: Split) -> None:
    """Raise InputError where this process was started with another configuration, or sees other images, than the first.

    What may differ between two parts of a run may differ between hosts too.
    """
    if get_world_size() == 1:
        return
    different = changes(broadcast(config_text), config_text)
    if different:
        raise InputError(f"process {get_rank()} has another configuration than process 0: {'; '.join(different)}")
    parts = {part: getattr(data, part) for part in ("train", "query", "gallery")}
    lines = {
        part: [f"{Path(image.path).name} {image.identity} {image.camera}" for image in images]
        for part, images in parts.items()
    }
    seen = {part: (len(own), seed_from(own)) for part, own in lines.items()}
    for part, theirs in broadcast(seen).items():
        if seen[part] != theirs:
            raise InputError(
                f"process {get_rank()} sees other images than process 0 in '{part}' of {data.name}: {seen[part][0]} and "
                f"{theirs[0]}; give every host the same dataset"
            )
    barrier()  # before anybody makes a folder


@dataclass(frozen=True)
class Experiment:
    """One RRI run and, where wanted, its control.

    Several processes run it together; the first one alone reads and writes the folder, which only it has opened.
    make_network: the network as it is before Step 0; make_objective(network): what its training minimizes.
    evaluate(model, last): its scores. final: which feature, normalization and flip `final` reports. carried: what every
    checkpoint carries besides (configuration, classes). origin: the first line of the log. descriptors: how many the
    pooling may start from, see `initialize_pooling`. report, ended: called after every stage, and when RRI has stopped.
    minutes: between two savings in the middle of an epoch, 0 for none. stop: whether the end is wished. changes: of the
    configuration since the run began, for the log. tell: called with a line about a checkpoint that is broken.
    """

    folder: RunFolder
    make_network: Callable[[], ReidNetwork]
    loader: Batches
    plan: Plan
    evaluate: Callable[[ReidNetwork, bool], tuple[Scores, ...]]
    final: dict[str, Any]
    carried: dict[str, Any]
    dataset: str
    origin: dict[str, Any]
    make_objective: Callable[[ReidNetwork], Objective] = lambda model: Objective()
    control: bool = False
    descriptors: int = DESCRIPTORS
    report: Callable[[StageLog], None] = lambda row: None
    ended: Callable[[str], None] = lambda stopped: None
    minutes: float = 0.0
    stop: StopSignal = field(default_factory=StopSignal)
    changes: tuple[str, ...] = ()
    tell: Callable[[str], None] = print

    def run(self) -> dict[str, Any]:
        """Train what is not yet trained; returns the content of `scores.json`. The folder is closed at its end.

        Raises KeyboardInterrupt where `stop` has been wished, with all that was done saved.
        """
        try:
            return self._run()
        except Diverged as error:
            saved = next((p for p in map(self._last, ("control", "rri")) if p.exists()), None)
            raise Diverged(f"{error}; the last good checkpoint is {saved}" if saved else str(error)) from None
        finally:
            self.folder.close()

    def _run(self) -> dict[str, Any]:
        found = run_on_main(self._found)
        if is_main_process():
            self._cut_log(found)
        network = self.make_network()
        state = TrainState("rri", network, self.make_objective(network))
        if "rri" in found:
            self._load(state, found.pop("rri"), self._last("rri"))
        else:
            solver = self.plan.solver
            initialize_pooling(
                state.model,
                self.loader,
                seed=solver.seed,
                norm_statistics=solver.norm_statistics,
                descriptors=self.descriptors,
            )
            self._save(state, "last")
        stopped = rri.run(state, self.loader, self.plan, self._hooks([]))
        self._finish(state)
        rows = list(state.rows)
        summary = self._summarize(rows, [], stopped)
        self.ended(stopped)
        if self.control:
            control = TrainState("control", state.model, state.objective)
            if "control" in found:
                self._load(control, found.pop("control"), self._last("control"))
            else:
                path = self.folder.checkpoints / "rri_step0.pth"
                self._load_weights(control, run_on_main(lambda: load_checkpoint(path)), path)
                control.rows = [dataclasses.replace(rows[0], run="control")]
                self._save(control, "last")
            rri.run_control(control, self.loader, self.plan, self._hooks(rows, stopped), rows)
            self._finish(control)
            summary = self._summarize(rows, control.rows, stopped)
        return summary

    def _last(self, run: str) -> Path:
        return self.folder.checkpoints / f"{run}_last.pth"

    def _before(self, run: str) -> Path:
        return self.folder.checkpoints / f"{run}_previous.pth"

    def _found(self) -> dict[str, dict[str, Any]]:
        """The newest whole checkpoint of each run."""
        told: list[str] = []
        found = {}
        for run in ("rri", "control"):
            if told and run == "control":
                # It started from what the broken checkpoint held, and does so again.
                for path in (self._last(run), self._before(run)):
                    path.unlink(missing_ok=True)
            try:
                content = load_latest(self._last(run), self._before(run), told.append)
            except InputError as error:
                if run == "rri":
                    raise
                told.append(f"{error}; starting the control again")
                self._last(run).unlink(missing_ok=True)
                content = None
            if content is not None:
                found[run] = content
        for line in told:
            self.tell(line)
        return found

    def _cut_log(self, found: dict[str, dict[str, Any]]) -> None:
        """Cut the log back to the checkpoint the run goes on from, or to its first line."""
        newest = found.get("control") or found.get("rri")
        self.folder.cut_log(newest["log_lines"] if newest else 0)
        if not newest:
            self.folder.log(self.origin)
        if newest and self.changes:
            self.folder.log({"kind": "changed", "changes": list(self.changes)})

    def _load(self, state: TrainState, content: dict[str, Any], path: Path) -> None:
        try:
            self._load_weights(state, content, path)
            state.restore(content)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: the state in it is none of this run ({type(error).__name__})") from None

    def _load_weights(self, state: TrainState, content: dict[str, Any], path: Path) -> None:
        load_state_dict(state.model, content["model"], network="this run", source=str(path))
        # A checkpoint of an earlier version holds no objective: the identity loss it trained with has no state.
        state.objective.load_state_dict(content.get("objective", {}))

    def _hooks(self, before: list[StageLog], stopped: str | None = None) -> Hooks:
        saved = time.monotonic()

        def save(state: TrainState) -> None:
            nonlocal saved
            self._save(state, "last")
            saved = time.monotonic()
            self._agree()
            self.stop.check()

        def due() -> bool:
            late = self.minutes > 0 and time.monotonic() - saved >= 60 * self.minutes
            return self._agree(late)

        def epoch(state: TrainState, entry: dict[str, Any]) -> None:
            self._log(entry)
            save(state)

        def stage(state: TrainState, row: StageLog) -> None:
            cmc = {f"{s.feature}{'_normalized' if s.normalized else ''}": list(s.cmc[:MAX_CMC]) for s in row.scores}
            entry = {"kind": "stage", "epoch": row.epochs, "loss": row.train_loss, **row.to_json(), "cmc": cmc}
            with self.stop.held():
                self._log(entry)
                name = row.stage if row.round == 0 else f"r{row.round:02d}_{row.stage}"
                self._save(state, name)
                self._save(state, "last")
                rows, control = (state.rows, []) if state.run == "rri" else (before, state.rows)
                self._summarize(rows, control, stopped)
                self.report(row)
                self._agree()

        # Step 0 alone is the last stage too: its images need not be embedded again for the flip test.
        alone = not (self.plan.max_rounds or self.plan.final_restraint)
        return Hooks(
            evaluate=lambda model, last: self.evaluate(model, last or alone),
            epoch=epoch,
            stage=stage,
            due=due,
            save=save,
            held=self.stop.held,
        )

    def _finish(self, state: TrainState) -> None:
        """The last row gets every score, the flip test too."""
        row = state.rows[-1]
        if {score.flip for score in row.scores} != {False, True}:
            state.rows[-1] = dataclasses.replace(row, scores=self.evaluate(state.model, True))
            self._log({"kind": "final", "run": state.run, "scores": state.rows[-1].to_json()["scores"]})
            self._save(state, "last")

    def _agree(self, late: bool = False) -> bool:
        """Whether any process wishes to end or is late: then all save, and end, at the same step."""
        found = all_reduce_max(2 if self.stop.requested else int(late))
        if found == 2:
            self.stop.requested = True
        return found > 0

    def _log(self, entry: dict[str, Any]) -> None:
        if is_main_process():
            self.folder.log(entry)

    def _save(self, state: TrainState, name: str) -> None:
        if not is_main_process():
            return
        content = {**self.carried, **state.to_checkpoint(), "log_lines": self.folder.log_length()}
        previous = self._before(state.run) if name == "last" else None
        save_checkpoint(self.folder.checkpoints / f"{state.run}_{name}.pth", content, previous=previous)

    def _summarize(self, rows: list[StageLog], control: list[StageLog], stopped: str | None) -> dict[str, Any]:
        """Write `scores.json`; while RRI has not ended, `stopped` is None and `final` is its last row so far."""
        summary = {
            "dataset": self.dataset,
            "rows": [row.to_json() for row in (*rows, *control[1:])],
            "final": choose(rows[-1].scores, **self.final).to_json(),
            "control_final": choose(control[-1].scores, **self.final).to_json() if control else None,
            "rounds": max((row.round for row in rows if row.stage == "relaxation"), default=0),
            "stopped": stopped,
        }
        if is_main_process():
            write_json(self.folder.path / "scores.json", summary)
        return summary
