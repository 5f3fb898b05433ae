"""Train SVDNet: Step 0, then the Restraint-and-Relaxation Iteration, and its control where requested."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from yacs.config import CfgNode

from reid.commands.stage_scoring import StageScoring, final_score, recorded_engine
from reid.config import build, load_config
from reid.config.keys import MOVABLE
from reid.config.loading import complete_config, config_digest, parse_config
from reid.data import split_table
from reid.decorrelation import gaussian_correlation
from reid.distributed import (
    get_world_size,
    is_main_process,
    local_main_first,
    process_group,
    restart_command,
    run_on_main,
)
from reid.errors import InputError, Interrupted, StopSignal, stop_signals
from reid.inference.engines.engine import check_engine
from reid.losses.objective import Objective
from reid.model.network import ReidNetwork
from reid.model.precision import autocast_dtype
from reid.progress import format_seconds, is_terminal, progress_bar
from reid.records import Split, StageLog
from reid.report.tables import HEADER, closing_lines, row_line
from reid.report.training import write_report
from reid.svdnet import rri, step0
from reid.svdnet.course import locate
from reid.svdnet.experiment import Experiment
from reid.svdnet.plan import Plan, check_parameter_names
from reid.threads import requested_threads, thread_count
from reid.training.data_record import record_data
from reid.training.memory import keep_freed_memory
from reid.training.parallel import check_parallel, check_same_inputs, synchronize_norms
from reid.training.pooling_init import check_pooling
from reid.training.provenance import provenance
from reid.training.run_folder import RunFolder
from reid.training.seeding import seed_everything
from reid.training.state import TrainState
from reid.training.step import compile_backbone
from reid.training.threads import ThreadChooser, same_thread_count

# In a log, a stage of hours says every so often that it is alive.
LOG_SECONDS = 300


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        folder: Run folder, OUTPUT_DIR.
        scores: Content of `scores.json`: the stages, the final scores, and those of the control if there is one.
        checkpoint: Checkpoint of the final network, for `Embedder.load`, `svdnet evaluate` and others.
        report: The page on the run, or where it would be if the extra `report` were installed.
    """

    folder: Path
    scores: dict[str, Any]
    checkpoint: Path
    report: Path


def main(arguments: argparse.Namespace) -> TrainResult:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.

    Returns:
        The scores and where the files are.
    """
    with stop_signals() as stop, process_group(), same_thread_count():
        config = _load(arguments.config_file, arguments.overrides)
        build.use_threads(config)
        folder = RunFolder(Path(config.OUTPUT_DIR), movable=MOVABLE)
        if is_main_process():
            folder.check(config.dump(), **_resume_options(arguments))  # before minutes of reading data
        device = build.device(config)
        if device.type == "cpu":
            keep_freed_memory()
        _, dtype = (autocast_dtype(part.PRECISION, device) for part in (config.SOLVER, config.TEST))
        check_engine(config.ENGINE, device, dtype)

        # Data
        data = _read_data(config)
        train = data.loaders.train

        # Network
        model, objective = _make_network(config, data)
        plan = build.plan(config, model)
        check_parameter_names(plan, model)
        check_pooling(model, train)
        check_parallel(model, train, plan.solver.norm_statistics)

        scoring = StageScoring(config, data.loaders, dtype, folder, recorded_engine(folder) if arguments.resume else {})
        experiment = _open_experiment(arguments, config, folder, data, scoring, stop)
        with _resumable(experiment, arguments):
            experiment.start(model, objective, train, plan)
            _print_start(config, model, experiment)
            with _stage_table(experiment, plan, config.RRI.CONTROL):
                state = experiment.begin(model, objective, train, plan, descriptors=config.MODEL.POOLING.DESCRIPTORS)

                # Step 0, then rounds of decorrelation, Restraint and Relaxation (Sun et al. 2017, Section 3.2)
                step0.run(state, train, plan, experiment)
                reason = rri.run(state, train, plan, experiment)
                summary = experiment.finish(state, reason)

                # Control: the same rounds and epochs without decorrelation
                if config.RRI.CONTROL:
                    scoring.control = True
                    control = experiment.begin_control(state)
                    rri.run_control(control, train, plan, experiment, state.rows)
                    summary = experiment.finish(control)

        # Report
        if not experiment.trained:
            print(
                f"the run in {folder.path} is finished: nothing is left to train; choose a new OUTPUT_DIR to train anew"
            )
        if is_main_process():
            _report(summary, folder, experiment.final)
        return TrainResult(folder.path, summary, folder.checkpoints / "rri_last.pth", folder.path / "report.html")


def train(
    config: str | Path | CfgNode,
    overrides: Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
    force: bool = False,
) -> TrainResult:
    """Train SVDNet, as `svdnet train` does: Step 0, RRI, and its control where the configuration requests one.

    Must be called from the main thread, where it handles Ctrl-C. It prints its progress.

    Args:
        config: Name of a configuration such as "demo_synthetic", a YAML file, or a configuration that has been loaded.
        overrides: Values of keys that take precedence, such as `{"OUTPUT_DIR": "runs/again", "SEED": 1}`.
        resume: Continue an interrupted run in OUTPUT_DIR; a finished one is only read.
        force: Resume although configuration, images or log have changed.

    Returns:
        The scores and where the files are.

    Raises:
        InputError: If the configuration, the data or the run folder cannot be used.
        Diverged: If the training diverges.
        Interrupted: After Ctrl-C; everything trained so far is saved.
    """
    pairs = [text for key, value in (overrides or {}).items() for text in (key, _as_text(value))]
    words = [] if isinstance(config, CfgNode) else ["--config-file", str(config)]
    call = {"program": ("svdnet", "train"), "arguments": (*words, *pairs)}
    return main(argparse.Namespace(config_file=config, overrides=pairs, resume=resume, force=force, **call))


def _load(config: str | Path | CfgNode, overrides: Sequence[str]) -> CfgNode:
    if isinstance(config, CfgNode):
        return parse_config("", overrides, base=config)
    return load_config(config, overrides)


def _as_text(value: Any) -> str:
    """A value as it is written after a key on the command line."""
    return str(list(value) if isinstance(value, tuple) else value)


@dataclass(frozen=True)
class _Data:
    """The images, and the pretrained weights if there are any."""

    weights: dict[str, Tensor] | None
    split: Split
    loaders: build.Loaders

    @property
    def num_classes(self) -> int:
        """Identities of the training set."""
        return len(self.split.train_labels())


def _resume_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"resume": arguments.resume, "force": arguments.force, "complete": complete_config}


def _read_data(config: CfgNode) -> _Data:
    with local_main_first():
        weights = None if config.STEP0.CHECKPOINT else build.pretrained(config)
        split = build.split(config)
        print(split_table(split), flush=True)
        loaders = build.loaders(config, split)
    check_same_inputs(config.dump(), split, MOVABLE)
    return _Data(weights, split, loaders)


def _make_network(config: CfgNode, data: _Data) -> tuple[ReidNetwork, Objective]:
    """Make the network before Step 0 and what its training minimizes, on the device."""
    device = build.device(config)
    seed_everything(config.SEED)
    model = build.network(config, num_classes=data.num_classes, weights=data.weights)
    model = (synchronize_norms(model) if config.SOLVER.SYNC_BN else model).to(device)
    if config.SOLVER.COMPILE:
        compile_backbone(model, device)
    objective = build.objective(config, model, num_classes=data.num_classes).to(device)
    if config.STEP0.CHECKPOINT:
        build.load_trained(config, model, objective)
    return model, objective


def _open_experiment(
    arguments: argparse.Namespace,
    config: CfgNode,
    folder: RunFolder,
    data: _Data,
    scoring: StageScoring,
    stop: StopSignal,
) -> Experiment:
    final = final_score(config)
    options = _resume_options(arguments)
    changes = run_on_main(
        lambda: folder.open(config.dump(), **options, tensorboard=config.TENSORBOARD, data=record_data(data.split))
    )
    for change in changes:
        print(f"changed: {change}")
    return Experiment(
        folder=folder,
        score=scoring,
        notes=scoring.notes,
        final=final,
        checkpoint_metadata={
            "config": config.dump(),
            "num_classes": data.num_classes,
            **build.library_versions(config),
        },
        dataset=data.split.name,
        provenance={
            "dataset": data.split.name,
            **provenance(str(build.device(config)), command=(*arguments.program, *arguments.arguments)),
            "processes": get_world_size(),
            "config_digest": config_digest(config),
        },
        changes=changes,
        minutes=config.CHECKPOINT.MINUTES,
        stop=stop,
        threads=_thread_chooser(config),
    )


def _thread_chooser(config: CfgNode) -> ThreadChooser:
    # Steps are timed only where one process trains on a CPU; code would be compiled again for each number.
    choice = get_world_size() == 1 and build.device(config).type == "cpu" and not config.SOLVER.COMPILE
    fixed = config.THREADS or requested_threads() is not None or not choice
    return ThreadChooser(config.THREADS or thread_count(), fixed=bool(fixed))


def _print_start(config: CfgNode, model: ReidNetwork, experiment: Experiment) -> None:
    start = "from scratch" if config.MODEL.WEIGHTS == "none" else f"weights {config.MODEL.WEIGHTS}"
    start = f"Step 0 of {config.STEP0.CHECKPOINT}" if config.STEP0.CHECKPOINT else start
    several = f"{get_world_size()} processes, " if get_world_size() > 1 else ""
    device, (d_in, k) = model.eigenlayer.vectors.device, model.eigenlayer.vectors.shape
    chooser = experiment.threads
    threads = f"{torch.get_num_threads()} threads"
    threads += f" (the fastest of 1 to {chooser.limit})" if chooser and chooser.timed else ""
    print(f"{config.MODEL.BACKBONE}, {start}, {device}, {several}{threads} -> {experiment.folder.path}")
    print(f"Eigenlayer {d_in} x {k}: a Gaussian matrix of this shape has S(W) = {gaussian_correlation(d_in, k):.4f}")


@contextlib.contextmanager
def _stage_table(experiment: Experiment, plan: Plan, control: bool) -> Iterator[None]:
    """Print a row for every finished stage, those of a resumed run too, above a bar of the whole training."""
    rows: dict[str, list[StageLog]] = {}
    printed = time.monotonic()
    print(HEADER, flush=True)

    def update(state: TrainState) -> None:
        nonlocal printed
        resumed, shown = state.run not in rows, rows.get(state.run, [])
        new = [row for row in state.rows[len(shown) :] if row.run == "rri" or row.stage != "step0"]
        rows[state.run] = list(state.rows)
        ended = state.run == "control"
        course = locate(
            plan, rows["rri"], state.epoch, control=rows.get("control", []) if control else None, ended=ended
        )
        bar.title = f"stage {course.stage} of {'' if course.exact else 'at most '}{course.stages}"
        bar.total = course.epochs
        (bar.skip if resumed else bar.advance)(course.epoch - bar.done)
        lines = [row_line(row.to_json(), **experiment.final) for row in new]
        if not lines and not is_terminal() and time.monotonic() >= printed + LOG_SECONDS:
            lines = [_epoch_line(state, bar.seconds_left())]
        if lines:
            print("\n".join(lines), flush=True)
            printed = time.monotonic()

    with progress_bar("training", 0, unit="epochs") as bar:
        experiment.on_progress = update
        yield


def _epoch_line(state: TrainState, left: float | None) -> str:
    """An unfinished stage, with the columns of the table."""
    position = f"{state.run:<8}{state.stage:<12}{state.round or '':>5}{state.epoch:>7}{state.seconds:>9.1f}"
    loss = f"{state.losses[-1]:.2f}" if state.losses else ""
    return f"{position}{loss:>11}   {'' if left is None else f'{format_seconds(left)} left'}".rstrip()


@contextlib.contextmanager
def _resumable(experiment: Experiment, arguments: argparse.Namespace) -> Iterator[None]:
    """Turn a requested stop into the command that resumes the run."""
    try:
        with experiment.recording():
            yield
    except KeyboardInterrupt:
        # The folder holds the configuration that --force accepted.
        rest = [word for word in arguments.arguments if word not in ("--resume", "--force")]
        again = restart_command(arguments.program, ["--resume", *rest])
        raise Interrupted(f"interrupted; everything trained so far is saved. To resume: {again}") from None


def _report(summary: dict[str, Any], folder: RunFolder, final: dict[str, Any]) -> None:
    print(f"\n{closing_lines(summary, **final)}")
    try:
        print(f"report: {write_report(folder.path)}")
    except InputError as error:  # the scores are there, only the libraries of the page are not
        print(f"no report.html: {error}")
