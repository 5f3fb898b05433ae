"""Write the tables of measured scores in README.md and docs/*.md from the rows in docs/results/.

    python docs/tables.py                           # make tables
    python docs/tables.py --add RUN NAME CONFIG     # a finished run of CONFIG with its control, into results/runs.jsonl

A table stands between `<!-- table: KIND NAME ... -->` and `<!-- end of table -->`. A row that holds a digest of its
settings is marked where today's configuration has others.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from reid.config.loading import config_digest, load_config, parse_config
from reid.errors import InputError
from reid.errors.command import run_command
from reid.io.atomic import write_text
from reid.io.json_yaml import flatten
from reid.report.summary import RUNS, STAGES
from reid.report.tables import MISSING, difference_text, markdown_table, percent, percent_with_deviation, variant_name
from reid.sweep.table import lines, read_rows, table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
# What might predict mAP, by its place in a row; other rows than the study's have only the first.
PREDICTORS = {
    "correlation": "S(W)",
    "geometry.feature_correlation": "S(C) of the features",
    "geometry.feature_effective_rank": "effective rank of the features",
    "geometry.severest_pair": "severest pair of W",
}
MIN_ROWS, RESAMPLES = 8, 2000
_TABLE = re.compile(r"(<!-- table: ([^>]+) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", nargs=3, metavar=("RUN", "NAME", "CONFIG"))
    arguments = parser.parse_args()
    if arguments.add:
        add_run(Path(arguments.add[0]), *arguments.add[1:])
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (filled := fill(text)) != text:
            write_text(page, filled)
            print(f"{page.relative_to(ROOT)}: tables written")


def fill(text: str) -> str:
    """Replace the tables in the text of a page."""

    def write(match: re.Match[str]) -> str:
        kind, *names = match[2].split()
        return f"{match[1]}{KINDS[kind](*names)}{match[4]}"

    return _TABLE.sub(write, text)


def sweep_table(folder: str, name: str) -> str:
    """Rows of a sweep over files of a folder of configs, in percent."""
    rows = read_rows(RESULTS / folder / f"{name}.jsonl")
    shown = table(lines(rows))
    commits = {row["name"]: origin(row, ROOT / "configs" / folder / row["config"]) for row in rows}
    # Other programs ran beside these trainings, so their speeds do not compare.
    kept = [column for column, name in enumerate(shown.header) if name != "images/s"]
    body = [(f"`{row[0]}`", *(row[column] for column in kept[1:]), commits[row[0]]) for row in shown.rows]
    return markdown_table((*(shown.header[column] for column in kept), "commit"), body) + "\n"


def runs_table(*names: str) -> str:
    """Step 0, control and RRI of runs side by side, and their difference with its 95 % interval."""
    known = {row["name"]: row for row in read_json_lines(RESULTS / "runs.jsonl")}
    runs = [known[name] for name in names]
    body = [
        (label, *(_scores(run[key]) for run in runs))
        for key, label in (
            ("step0", "after Step 0"),
            ("control", "control, the same epochs without the replacement"),
            ("rri", "RRI"),
        )
    ]
    for key, label in (("rank1", "rank-1"), ("mAP", "mAP")):
        gains = [difference_text(run["rri"], run["control"], key, run["difference"]) for run in runs]
        body.append((f"RRI minus control, {label}", *gains))
    body.append(("commit", *(origin(run, ROOT / run["config"]) for run in runs)))
    kinds = {variant_name(run) for run in runs}
    if len(kinds) > 1:
        raise InputError(f"the runs {', '.join(names)} are judged by different features; show them in separate tables")
    return markdown_table((f"rank-1 / mAP, {kinds.pop()}", *(run["title"] for run in runs)), body) + "\n"


def stages_table(name: str) -> str:
    """Every stage of a run and its control, with the scores of both features, raw and L2-normalized."""
    rows = read_json_lines(RESULTS / "stages" / f"{name}.jsonl")
    kinds = [kind for row in rows[:1] for kind in row["scores"]]
    body = []
    for row in rows:
        before = f"{row['train_loss_before']:.2f} → " if "train_loss_before" in row else ""
        body.append(
            (
                RUNS[row["run"]],
                f"{STAGES[row['stage']]} {row['round'] or ''}".rstrip(),
                str(row["epochs"] or ""),
                f"{row['seconds']:.1f}",
                f"{before}{row['train_loss']:.2f}",
                f"{row['correlation']:.4f}",
                *(_scores(row["scores"][kind]) for kind in kinds),
            )
        )
    return markdown_table(("run", "stage", "epochs", "seconds", "loss", "S(W)", *kinds), body) + "\n"


def study_table(recipe: str) -> str:
    """The arms of a recipe of benchmarks/study.py, over the seeds that they share with the control."""
    rows = [row for row in read_json_lines(RESULTS / "study.jsonl") if row["recipe"] == recipe]
    body = []
    for summary in (row for row in rows if row.get("other") == "control"):
        own = [row for row in rows if row["arm"] == summary["arm"] and row.get("seed") in summary["seeds"]]
        body.append(
            (
                summary["arm"],
                str(len(own)),
                f"{summary['correlation'][0]:.3f}",
                ", ".join(_jump(own, round) for round in (1, 2, 3) if _jump(own, round)) or MISSING,
                *(percent_with_deviation(summary[key]) for key in ("rank1", "mAP")),
                percent(float(np.mean([row["stages"][-1]["output"][1] for row in own]))),
                *_gain(summary),
                ", ".join(sorted({f"{row['commit']}, {row['processor']}" for row in own})),
            )
        )
    header = (
        "arm",
        "seeds",
        "S(W)",
        "loss before → after each replacement",
        "rank-1",
        "mAP",
        "mAP, output",
    )
    return markdown_table((*header, *(f"mAP minus control{rest}" for rest in _OF_GAIN), "commit"), body) + "\n"


def gains_table(recipe: str) -> str:
    """By how many points of mAP the arms of a recipe are above their control after every stage."""
    rows = [row for row in read_json_lines(RESULTS / "study.jsonl") if row["recipe"] == recipe and "seed" in row]
    stages = {(row["arm"], row["seed"]): _stage_scores(row) for row in rows}
    gains: dict[str, list[dict[str, float]]] = {}
    for (arm, seed), scores in stages.items():
        control = stages.get(("control, no dropout" if arm.endswith("no dropout") else "control", seed))
        if not arm.startswith("control") and control and scores.keys() == control.keys():
            gains.setdefault(arm, []).append({stage: scores[stage] - control[stage] for stage in scores})
    names = list(next(iter(gains.values()))[0])
    means = {arm: [_points(float(np.mean([one[name] for one in own]))) for name in names] for arm, own in gains.items()}
    return markdown_table(("arm", *names), [(arm, *mean) for arm, mean in means.items()]) + "\n"


def _stage_scores(run: Mapping[str, Any]) -> dict[str, float]:
    """MAP of the raw input of the Eigenlayer by stage; a replacement has not changed it."""
    names = {"step0": "Step 0", "restraint": "Restraint {}", "relaxation": "Relaxation {}"}
    trained = [stage for stage in run["stages"] if stage["stage"] in names]
    return {names[stage["stage"]].format(stage["round"]): stage["input"][1] for stage in trained}


def contrasts_table(recipe: str) -> str:
    """The pairs of arms of a recipe of benchmarks/study.py that tell explanations apart."""
    rows = [row for row in read_json_lines(RESULTS / "study.jsonl") if row["recipe"] == recipe]
    pairs = [row for row in rows if row.get("other", "control") != "control"]
    body = [(f"{row['arm']} minus {row['other']}", *_gain(row)) for row in pairs]
    return markdown_table(("arms", *(f"mAP{rest}" for rest in _OF_GAIN)), body) + "\n"


_OF_GAIN = (", 95 %", " of each seed", " of each seed, L2-normalized")


def _gain(summary: Mapping[str, Any]) -> tuple[str, str, str]:
    """The difference of two arms with its interval, and of every seed, in points of mAP."""
    if "difference" not in summary:
        return (MISSING,) * 3
    mean, low, high = (_points(value) for value in summary["difference"]["mAP"])
    seeds = (", ".join(map(_points, summary[key])) for key in ("by_seed", "by_seed_normalized"))
    return (f"{mean} [{low}, {high}]", *seeds)


def _points(fraction: float) -> str:
    return f"{100 * fraction + 0.0:+.1f}"


def prediction_table() -> str:
    """Spearman's rank correlation of mAP with what might predict it, within each backbone, recipe and number of epochs.

    The intervals resample arms and not runs, since the seeds of an arm are not independent of one another. Values are
    rounded to three significant digits before they are ranked: those of orthogonal weights differ by rounding only.
    """
    study = [row for row in read_json_lines(RESULTS / "study.jsonl") if "seed" in row]
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in study:
        groups.setdefault(f"the study, {run['recipe']}", []).append(run)
    found = {(row["config"]): row for file in sorted((RESULTS / "parts").glob("*.jsonl")) for row in read_rows(file)}
    for row in found.values():
        backbone = load_config(ROOT / "configs" / "parts" / row["config"]).MODEL.BACKBONE
        groups.setdefault(f"the parts, {backbone}, {row['epochs']} epochs", []).append({"arm": row["name"], **row})
    body = []
    for group, rows in groups.items():
        if len(rows) >= MIN_ROWS:
            number = f"{len(rows)} of {len({row['arm'] for row in rows})} arms"
            body.append((group, number, *(_rank_correlation(rows, key) for key in PREDICTORS)))
    return markdown_table(("", "runs", *PREDICTORS.values()), body) + "\n"


def benchmark_table(name: str) -> str:
    """What a program of benchmarks/ measured, and where."""
    rows = read_json_lines(RESULTS / "benchmarks" / f"{name}.jsonl")
    columns = list(dict.fromkeys(column for row in rows for column in row["cells"]))
    body = [[row["cells"].get(column, "") for column in columns] for row in rows]
    origins = dict.fromkeys(f"{row['about']}; commit {row['commit']}, {row['processor']}" for row in rows)
    return f"{markdown_table(columns, body)}\n\n{'; '.join(origins)}.\n"


KINDS: dict[str, Callable[..., str]] = {
    "parts": functools.partial(sweep_table, "parts"),
    "backbones": functools.partial(sweep_table, "backbones"),
    "runs": runs_table,
    "stages": stages_table,
    "study": study_table,
    "gains": gains_table,
    "contrasts": contrasts_table,
    "prediction": prediction_table,
    "benchmark": benchmark_table,
}


def origin(row: Mapping[str, Any], config: Path) -> str:
    """The commit of a row, and whether its configuration has changed since."""
    commit, digest = row["commit"] or MISSING, row.get("config_digest")
    words = [word for pair in row.get("setting", {}).items() for word in pair]
    return f"{commit}, other settings" if digest and digest != _digest(config, *words) else commit


@functools.cache
def _digest(config: Path, *words: str) -> str:
    return config_digest(load_config(config, words))


def add_run(folder: Path, name: str, config: str) -> None:
    """Add a finished run with its control to results/runs.jsonl, or replace the row of that name.

    Its stages become results/stages/NAME.jsonl.
    """
    summary = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    start = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    if not summary["control_final"]:
        raise InputError(f"{folder}: the run or its control is not finished")
    final = summary["final"]
    kind = {key: final[key] for key in ("feature", "normalized", "flip")}
    step0 = next(row for row in summary["rows"] if row["stage"] == "step0")["scores"]
    stages = {
        "step0": next(score for score in step0 if kind.items() <= score.items()),
        "control": summary["control_final"],
        "rri": final,
    }
    rows = {row["name"]: row for row in read_json_lines(RESULTS / "runs.jsonl")}
    rows[name] = {
        "name": name,
        "title": name.replace("_", " "),
        **rows.get(name, {}),
        "config": Path(config).resolve().relative_to(ROOT).as_posix(),
        "dataset": summary["dataset"],
        "commit": start["commit"],
        "config_digest": config_digest(parse_config((folder / "config.yaml").read_text(encoding="utf-8"))),
        **{key: start["machine"][key] for key in ("processor", "threads")},
        **kind,
        **{stage: {key: score[key] for key in ("rank1", "mAP", "mINP")} for stage, score in stages.items()},
        "difference": summary["difference"],
    }
    write_json_lines(RESULTS / "runs.jsonl", rows.values())
    # The stages of the control that repeat those of RRI, and replacements that it does not make, are left out.
    stages = [row for row in summary["rows"] if row["run"] == "rri" or row["stage"] not in ("step0", "decorrelate")]
    write_json_lines(RESULTS / "stages" / f"{name}.jsonl", [_stage(row) for row in stages])


def _stage(row: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("run", "stage", "round", "epochs", "seconds", "train_loss", "train_loss_before", "correlation")
    scores = {
        f"{score['feature']}, {'L2' if score['normalized'] else 'raw'}": {key: score[key] for key in ("rank1", "mAP")}
        for score in row["scores"]
        if not score["flip"]
    }
    return {key: row[key] for key in keys if key in row} | {"scores": scores}


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file with a JSON object per line."""
    path.parent.mkdir(exist_ok=True)
    write_text(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file with a JSON object per line; empty if it is missing."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _scores(score: Mapping[str, Any]) -> str:
    return f"{percent(score['rank1'])} / {percent(score['mAP'])}"


def _rank_correlation(rows: list[dict[str, Any]], key: str) -> str:
    """Spearman's coefficient with its 95 % percentile interval over resampled arms."""
    flat = [dict(flatten(row)) for row in rows]
    if not all(key in row for row in flat):
        return MISSING
    pairs = np.array([[float(f"{row[key]:.3g}"), row["mAP"]] for row in flat])
    arms = [np.flatnonzero([row["arm"] == arm for row in flat]) for arm in dict.fromkeys(row["arm"] for row in flat)]
    drawn = []
    for chosen in np.random.default_rng(0).integers(len(arms), size=(RESAMPLES, len(arms))):
        resample = pairs[np.concatenate([arms[arm] for arm in chosen])]
        if len(set(chosen)) > 1 and np.ptp(resample, axis=0).all():  # a constant correlates with nothing
            drawn.append(stats.spearmanr(*resample.T).statistic)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{stats.spearmanr(*pairs.T).statistic:+.2f} [{low:+.2f}, {high:+.2f}]"


def _jump(runs: Iterable[Mapping[str, Any]], round: int) -> str:
    """Mean loss before and after the replacement of a round; empty if there was none."""
    pairs = [
        (stage["train_loss_before"], stage["train_loss_after"])
        for run in runs
        for stage in run["stages"]
        if stage.get("round") == round and "train_loss_after" in stage
    ]
    return " → ".join(f"{np.mean(side):.2f}" for side in zip(*pairs, strict=True))


if __name__ == "__main__":
    run_command(main)
