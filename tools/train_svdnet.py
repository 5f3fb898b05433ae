"""Train SVDNet: Step 0, then the Restraint-and-Relaxation Iteration, and its control where wanted."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from reid.config import build
from reid.config.loading import complete_config, load_config
from reid.data import banner
from reid.decorrelation import gaussian_correlation
from reid.distributed import (
    get_world_size,
    is_main_process,
    local_main_first,
    process_group,
    restart_command,
    run_on_main,
)
from reid.errors import InputError, Interrupted, StopSignal, run_command, stop_signals
from reid.evaluation.retrieval import network_features, score_together
from reid.losses.objective import Objective
from reid.model.network import ReidNetwork
from reid.model.precision import autocast_dtype
from reid.records import Scores
from reid.report.tables import HEADER, REASONS, row_line, stage_table
from reid.report.training import write_report
from reid.svdnet.experiment import Experiment, check_alike
from reid.svdnet.rri import check_freezes
from reid.training.parallel import check_parallel, synchronized
from reid.training.pooling_init import check_pooling
from reid.training.provenance import provenance
from reid.training.run_folder import RunFolder
from reid.training.seeding import seed_everything
from reid.training.step import compile_backbone


def main() -> None:
    with stop_signals() as stop, process_group():
        train(stop)


def train(stop: StopSignal) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, type=Path, help="a YAML file of configs/")
    parser.add_argument("--resume", action="store_true", help="go on with the run in OUTPUT_DIR")
    parser.add_argument("--force", action="store_true", help="go on though the configuration has changed")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="such as SEED 1 OUTPUT_DIR runs/again")
    arguments = parser.parse_args()
    config = load_config(arguments.config_file, arguments.overrides)

    # What can be wrong is found before the folder is made, and before hours of training have led to it.
    folder = RunFolder(Path(config.OUTPUT_DIR))
    going_on = {"resume": arguments.resume, "complete": complete_config, "force": arguments.force}
    if is_main_process():
        folder.check(config.dump(), **going_on)
    device, plan = build.device(config), build.plan(config)
    dtype = autocast_dtype(config.TEST.PRECISION, device)
    with local_main_first():
        weights = build.pretrained(config)
        split = build.split(config)
        print(banner(split), flush=True)
        loaders = build.loaders(config, split)
    check_alike(config.dump(), split)
    classes = len(split.train_labels())

    def make_network() -> ReidNetwork:
        seed_everything(config.SEED)
        network = build.network(config, num_classes=classes, weights=weights)
        network = (synchronized(network) if config.SOLVER.SYNC_BN else network).to(device)
        if config.SOLVER.COMPILE:
            compile_backbone(network, device)
        return network

    def make_objective(model: ReidNetwork) -> Objective:
        return build.objective(config, model, num_classes=classes).to(device)

    def evaluate(model: ReidNetwork, last: bool) -> tuple[Scores, ...]:
        flips = (False, True) if last else (config.TEST.FLIP,)
        return score_together(network_features(model, loaders.query, loaders.gallery, flips=flips, dtype=dtype))

    model = make_network()
    make_objective(model)
    check_freezes(plan, model)
    check_pooling(model, loaders.train)
    check_parallel(model, loaders.train, plan.solver.norm_statistics)
    changes = run_on_main(lambda: folder.open(config.dump(), **going_on, tensorboard=config.TENSORBOARD))
    for change in changes:
        print(f"changed: {change}")
    start = "from scratch" if weights is None else f"weights {config.MODEL.WEIGHTS}"
    told = f"{get_world_size()} processes, " if get_world_size() > 1 else ""
    print(f"{config.MODEL.BACKBONE}, {start}, {device}, {told}{torch.get_num_threads()} threads -> {folder.path}")
    d_in, k = model.eigenlayer.vectors.shape
    print(f"Eigenlayer {d_in} x {k}: a Gaussian matrix of this shape has S(W) = {gaussian_correlation(d_in, k):.4f}")
    print(HEADER, flush=True)
    final = {"feature": config.TEST.FEATURE, "normalized": config.TEST.NORMALIZED, "flip": config.TEST.FLIP}
    experiment = Experiment(
        folder=folder,
        make_network=make_network,
        make_objective=make_objective,
        loader=loaders.train,
        plan=plan,
        evaluate=evaluate,
        final=final,
        carried={"config": config.dump(), "num_classes": classes},
        dataset=split.name,
        origin={"kind": "start", "dataset": split.name, **provenance(), "processes": get_world_size()},
        control=config.RRI.CONTROL,
        descriptors=config.MODEL.POOLING.DESCRIPTORS,
        report=lambda row: print(row_line(row.to_json(), **final), flush=True),
        ended=lambda stopped: print(REASONS[stopped], flush=True),
        minutes=config.CHECKPOINT.MINUTES,
        stop=stop,
        changes=changes,
    )
    try:
        summary = experiment.run()
    except KeyboardInterrupt:
        left_out = ("--resume", "--force")  # what was forced stands in the folder now
        again = restart_command(["--resume", *(a for a in sys.argv[1:] if a not in left_out)])
        raise Interrupted(f"interrupted; what was trained is saved. To go on: {again}") from None
    if not is_main_process():
        return
    print(f"\n{stage_table(summary, **final)}")
    try:
        print(f"report: {write_report(folder.path)}")
    except InputError as error:  # the scores are there; only the page's libraries are not
        print(f"no report.html: {error}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
