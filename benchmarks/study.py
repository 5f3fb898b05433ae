"""Does decorrelation pay, and why: RRI against its control and against what else could explain a gain.

    python benchmarks/study.py FOLDER [--recipes identity circle] [--arms control US ...] [--seeds 0 1 2]
                               [--jobs 2] [--rows docs/results/study.jsonl] [--rows-only] [KEY VALUE ...]

Run it from a clone that stays at one commit (`PYTHONPATH=.`): arms are compared only if code and machine are the same.
SOLVER.PRECISION bfloat16 or float32 keeps that from depending on the machine.

A recipe is a file of configs/study. Every arm trains the same rounds, epochs, schedules and batches, but for the one
long Step 0. Arms that start from a trained network share the Step 0 of their recipe and seed; those with a constraint
train under it from the start. A run that was interrupted goes on where it was, and a finished one is not repeated.

What the study asks first is whether the mAP of US differs from that of the control, in each recipe. All other
comparisons explore, and no interval is corrected for their number; the arms of a recipe share one control.

The rows of the finished runs are written to --rows: the scores of both features and S(W) after every stage, and the
loss before and after every replacement; then, for every comparison of two arms, the difference over their common seeds
and of every seed, with the 95 % interval of a paired bootstrap over seeds and persons, which are printed too.
`make tables` shows the rows in docs/science.md. KEY VALUE overrides the configuration of every run.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from reid.config import build
from reid.config.loading import config_digest, load_config
from reid.diagnostics.feature_statistics import describe_features
from reid.diagnostics.weights import Layer, measure_correlation
from reid.errors import InputError
from reid.errors.command import run_command
from reid.evaluation.retrieval import choose_features, network_features
from reid.inference.engines.engine import open_engine
from reid.io.atomic import write_text
from reid.io.checkpoint import load_checkpoint
from reid.io.json_yaml import parse_json
from reid.ranking.bootstrap import paired_bootstrap_of_runs
from reid.records import PER_QUERY
from reid.sweep.runs import SweepRun, run_all

CONFIGS = Path(__file__).parent.parent / "configs" / "study"
RECIPES = ("identity", "circle")
CONTROL = "control"
_NONE = ("RRI.VARIANT", "none")
_STEP0_ONLY = (("RRI.MAX_ROUNDS", "0"), ("RRI.FINAL_RESTRAINT", "False"))
# What each arm sets.
FROM_STEP0: dict[str, tuple[tuple[str, str], ...]] = {
    CONTROL: (_NONE,),
    "US": (("RRI.VARIANT", "US"),),
    "rotate": (("RRI.VARIANT", "rotate"),),
    "US, classifier rotated": (("RRI.VARIANT", "US"), ("RRI.ROTATE_CLASSIFIER", "True")),
    "new classifier": (_NONE, ("RRI.RESET_CLASSIFIER", "True")),
    "US, nothing frozen": (("RRI.VARIANT", "US"), ("RRI.FREEZE_EIGENLAYER", "False")),
    # The order of US keeps it near W, so that its loss jumps less than that of a random rotation; in this one as much.
    "US, sorted": (("RRI.VARIANT", "US"), ("RRI.ORDER", "sorted")),
    # Dropout on the output costs more where the columns are orthogonal, which regularizes more.
    "control, no dropout": (_NONE, ("MODEL.DROPOUT", "0.0")),
    "US, no dropout": (("RRI.VARIANT", "US"), ("MODEL.DROPOUT", "0.0")),
}
FROM_START: dict[str, tuple[tuple[str, str], ...]] = {
    "scaled orthogonal": (_NONE, ("MODEL.EIGENLAYER.PARAMETRIZATION", "scaled_orthogonal")),
    "SO penalty": (_NONE, ("LOSS.PENALTY", "so"), ("LOSS.PENALTY_WEIGHT", "0.01")),
    # As many epochs on one schedule: what the control, whose learning rate restarts in every stage, gives away.
    "one long Step 0": (_NONE, ("STEP0.EPOCHS", "21"), *_STEP0_ONLY),
}
# What explains a gain: orthogonality, what kind of restart, the jump, Restraint, dropout, and how the epochs are spent.
CONTRASTS = (
    ("US", "rotate"),
    ("US, sorted", "rotate"),
    ("new classifier", "rotate"),
    ("US", "US, classifier rotated"),
    ("US", "new classifier"),
    ("US", "US, nothing frozen"),
    ("US, no dropout", "control, no dropout"),
    ("US", "one long Step 0"),
)
# A recipe that trains without dropout has no such arms.
NOT_IN = {"circle": ("control, no dropout", "US, no dropout")}
RECORDED = ("commit", "config_digest", "processor", "threads", "epochs", "seconds", "correlation")
KEPT_OUT = ("per_query", "identities")  # too long for a row
ARMS = FROM_STEP0 | FROM_START
# Every arm runs all rounds: S(W) of the control does not rise, so it would stop after the first.
_ALL_ROUNDS = (("RRI.PATIENCE", "99"),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--rows-only", action="store_true", help="train nothing")
    arguments, words = parser.parse_known_args()
    if len(words) % 2:
        raise InputError(f"{' '.join(words)}: settings are pairs KEY VALUE")
    common = tuple(zip(words[::2], words[1::2], strict=True))
    step0, arms = plan(arguments.folder, arguments.recipes, arguments.arms, arguments.seeds, common)
    for run in (*step0, *arms.values()):
        if run.finished():
            check_settings(run)
    if not arguments.rows_only:
        train([run for run in step0 if not run.finished()], arguments.jobs)
        train([run for run in arms.values() if not run.finished()], arguments.jobs)
    rows = [run_row(recipe, arm, run) for (recipe, arm, _), run in arms.items() if run.finished()]
    summaries = summarize(rows)
    if arguments.rows:
        lines = [json.dumps({k: v for k, v in row.items() if k not in KEPT_OUT}) for row in [*rows, *summaries]]
        write_text(arguments.rows, "".join(f"{line}\n" for line in lines))
    for summary in summaries:
        print(json.dumps(summary))


def plan(
    folder: Path, recipes: list[str], arms: list[str], seeds: list[int], common: tuple[tuple[str, str], ...]
) -> tuple[list[SweepRun], dict[tuple[str, str, int], SweepRun]]:
    """The runs of Step 0, and those of the arms by recipe, arm and seed, the first seed first."""
    step0, runs = list[SweepRun](), dict[tuple[str, str, int], SweepRun]()
    for seed in seeds:
        for recipe in recipes:
            config = CONFIGS / f"{recipe}.yaml"
            start = folder / f"step0_{recipe}_{seed}"
            step0.append(SweepRun("step0", config, (*common, *_STEP0_ONLY), seed, start, control=False))
            for arm in (arm for arm in arms if arm not in NOT_IN.get(recipe, ())):
                setting = (*ARMS[arm], *_ALL_ROUNDS, *common)
                if arm in FROM_STEP0:
                    setting += (("STEP0.CHECKPOINT", str(start / "checkpoints" / "rri_last.pth")),)
                name = arm.replace(", ", "_").replace(" ", "_")
                path = folder / f"{name}_{recipe}_{seed}"
                runs[recipe, arm, seed] = SweepRun(arm, config, setting, seed, path, control=False)
    return step0, runs


def train(runs: list[SweepRun], jobs: int) -> None:
    """Train runs in parallel, report each as it ends, and stop if one has failed."""
    failed = []

    def ended(run: SweepRun, error: str | None) -> None:
        print(f"{run.folder.name}: {error or 'finished'}", flush=True)
        failed.extend([run] if error else [])

    run_all(runs, jobs=jobs, ended=ended)
    if failed:
        raise InputError(f"{len(failed)} of {len(runs)} trainings failed; see {failed[0].log} and mend what it says")


def check_settings(run: SweepRun) -> None:
    """Check that a finished run has today's settings."""
    words = [word for pair in run.setting for word in pair]
    if run.row()["config_digest"] != config_digest(load_config(run.config, [*words, "SEED", str(run.seed)])):
        raise InputError(f"{run.folder}: trained with other settings; move it away, or name another FOLDER")


def run_row(recipe: str, arm: str, run: SweepRun) -> dict[str, Any]:
    """The row of a finished run, and the values of its queries."""
    content = load_checkpoint(run.folder / "checkpoints" / "rri_last.pth")
    queries = run.query_scores()
    if queries is None:
        raise InputError(f"{run.folder}: the scores of its queries were not kept; move it away to train it again")
    final, geometry = run.row(), measure_geometry(run.folder, content)
    log = (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "recipe": recipe,
        "arm": arm,
        "seed": run.seed,
        **{key: final[key] for key in RECORDED},
        "changed": [entry["changes"] for entry in map(parse_json, log) if entry["kind"] == "changed"],
        "rank1": final["rank1"],
        "mAP": final["mAP"],
        "geometry": geometry,
        "stages": [_stage(row) for row in content["rows"]],
        "per_query": queries[0],
        "identities": queries[1],
    }


def measure_geometry(folder: Path, content: dict[str, Any]) -> dict[str, float]:
    """What may predict retrieval, beside S(W), at the end of a run; kept in its folder.

    Of the Eigenlayer its severest pair and effective rank, of the covariance of its input over query and gallery S(C)
    and the effective rank.
    """
    path = folder / "geometry.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    network, config = build.network_from_checkpoint(content, source=str(folder))
    loaders = build.loaders(config, build.split(config))
    engine = open_engine(network.to(build.device(config)), config, keep=False)
    engine.expect(len(loaders.query.paths) + len(loaders.gallery.paths))
    features = network_features(engine, loaders.query, loaders.gallery, flips=(False,))
    sides = choose_features(features, feature="input", normalized=False, flip=False)
    covariance = describe_features(np.concatenate([np.asarray(side.values) for side in sides]))
    weights = measure_correlation(Layer("eigenlayer.weight", network.eigenlayer.vectors.detach().cpu().T).matrices())
    measured = {key: weights[key] for key in ("severest_pair", "effective_rank")}
    measured |= {f"feature_{key}": covariance[key] for key in ("correlation", "effective_rank")}
    write_text(path, json.dumps(measured))
    return measured


def _stage(row: dict[str, Any]) -> dict[str, Any]:
    """Scores of both features, S(W), and the jump of the loss, after one stage."""
    stage = {key: row[key] for key in ("stage", "round", "correlation")}
    for score in row["scores"]:
        if not score["flip"]:
            kind = f"{score['feature']}{' normalized' if score['normalized'] else ''}"
            stage[kind] = [score["rank1"], score["mAP"]]
    return stage | {key: row["extra"][key] for key in ("train_loss_before", "train_loss_after") if key in row["extra"]}


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare every arm with its control, and the pairs of `CONTRASTS`, over the seeds that both have."""
    result = []
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        arms = defaultdict[str, dict[int, dict[str, Any]]](dict)
        for row in rows:
            if row["recipe"] == recipe:
                arms[row["arm"]][row["seed"]] = row
        pairs = [*((arm, CONTROL) for arm in arms), *CONTRASTS]
        result += [summary for arm, other in pairs if (summary := compare(recipe, arm, other, arms))]
    return result


def compare(recipe: str, arm: str, other: str, arms: dict[str, dict[int, dict[str, Any]]]) -> dict[str, Any] | None:
    """Mean and deviation of an arm, and its difference to another, over their common seeds; None if there are none."""
    seeds = sorted(arms[arm].keys() & arms[other].keys())
    if not seeds:
        return None
    ours, theirs = ([arms[name][seed] for seed in seeds] for name in (arm, other))
    summary: dict[str, Any] = {"recipe": recipe, "arm": arm, "other": other, "seeds": seeds}
    for key in ("rank1", "mAP", "correlation"):
        values = [row[key] for row in ours]
        summary[key] = [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None]
    if arm == other:
        return summary
    pairs = list(zip(ours, theirs, strict=True))
    reasons = [reason for one, two in pairs if (reason := difference_of_pair(one, two))]
    if reasons:
        return {**summary, "refused": reasons}
    first, second = (np.stack([row["per_query"] for row in side]) for side in (ours, theirs))
    ends = paired_bootstrap_of_runs(first, second, ours[0]["identities"])
    summary["difference"] = dict(zip(PER_QUERY, ends.tolist(), strict=True))
    summary["by_seed"] = [one["mAP"] - two["mAP"] for one, two in pairs]
    summary["by_seed_normalized"] = [_normalized(one) - _normalized(two) for one, two in pairs]
    return summary


def difference_of_pair(one: dict[str, Any], other: dict[str, Any]) -> str:
    """In what two runs differ beside their arm; empty if in nothing."""
    names = " and ".join(f"{row['arm']} {row['recipe']} {row['seed']}" for row in (one, other))
    for key in ("commit", "processor", "threads"):
        if one[key] != other[key]:
            return f"{names}: {key} {one[key]} and {other[key]}; train both again, on one machine"
    for row in (one, other):
        if row["changed"] or str(row["commit"]).endswith("-dirty"):
            return f"{names}: the code of {row['arm']} was changed meanwhile or not committed; train it again"
    starts = [row["stages"][0]["correlation"] for row in (one, other)]
    if {one["arm"], other["arm"]} <= FROM_STEP0.keys() and starts[0] != starts[1]:
        return f"{names}: they began with different networks; train both again"
    if not np.array_equal(one["identities"], other["identities"]):
        return f"{names}: they were tested on different queries"
    return ""


def _normalized(row: dict[str, Any]) -> float:
    """MAP of the L2-normalized input of the Eigenlayer at the end."""
    return float(row["stages"][-1]["input normalized"][1])


if __name__ == "__main__":
    raise SystemExit(run_command(main))
