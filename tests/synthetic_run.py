"""A synthetic run folder for tests: `config.yaml`, `log.jsonl` and `scores.json` in the format of a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

CONFIG = """\
MODEL:
  BACKBONE: osnet_x0_25
  WEIGHTS: none
RRI:
  CONTROL: {control}
  PATIENCE: 1
  TOLERANCE: 0.01
TEST:
  FEATURE: input
  FLIP: false
  NORMALIZED: false
"""
EPOCHS = {"step0": 4, "decorrelate": 0, "restraint": 3, "relaxation": 2}


class SyntheticRun:
    """A run folder with random numbers for every stage. config: text appended to the configuration."""

    def __init__(
        self,
        folder: Path,
        *,
        rounds: int = 2,
        control: bool = True,
        final: bool = True,
        size: int = 16,
        seed: int = 0,
        dataset: str = "market1501",
        config: str = "",
    ) -> None:
        self.folder, self.size = folder, size
        self.config = CONFIG.format(control=str(control).lower()) + config
        self.random = np.random.default_rng(seed)
        self.lines: list[dict[str, Any]] = [
            {"kind": "start", "dataset": dataset, "command": "tools/train_svdnet.py", "versions": {"reid": "0"}}
        ]
        self.rows: list[dict[str, Any]] = []
        plan = [("step0", 0)]
        for round in range(1, rounds + 1):
            plan += [(stage, round) for stage in ("decorrelate", "restraint", "relaxation")]
        plan += [("decorrelate", rounds + 1), ("restraint", rounds + 1)] if final else []
        for run in ("rri", "control") if control else ("rri",):
            for stage, round in plan[run == "control" :]:
                self._stage(run, stage, round)
            last = self.rows[-1]
            last["scores"] = [*last["scores"], *self._scores(flip=True)]
            self.lines.append({"kind": "final", "run": run, "scores": last["scores"]})
        last_rows = {
            run: next(r for r in reversed(self.rows) if r["run"] == run) for run in {r["run"] for r in self.rows}
        }
        self.summary: dict[str, Any] = {
            "dataset": dataset,
            "rows": self.rows,
            "final": last_rows["rri"]["scores"][0],
            "control_final": last_rows["control"]["scores"][0] if control else None,
            "rounds": rounds,
            "stopped": "converged",
        }

    def _scores(self, flip: bool) -> list[dict[str, Any]]:
        names = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP")
        return [
            {"feature": feature, "normalized": normalized, "flip": flip, "queries": 3368, "dropped_queries": 0}
            | {name: float(self.random.uniform(0.2, 0.99)) for name in names}
            for feature in ("input", "output")
            for normalized in (False, True)
        ]

    def _stage(self, run: str, stage: str, round: int) -> None:
        for epoch in range(1, EPOCHS[stage] + 1):
            loss, correlation = self.random.uniform(1, 6), self.random.uniform(0.02, 1)
            position = {"run": run, "stage": stage, "round": round, "epoch": epoch}
            self.lines.append({"kind": "epoch", **position, "loss": loss, "correlation": correlation, "lr": 0.1})
        row = {"run": run, "stage": stage, "round": round, "epochs": EPOCHS[stage]}
        row |= {"seconds": float(self.random.uniform(1, 900)), "train_loss": float(self.random.uniform(1, 6))}
        row |= {"correlation": float(self.random.uniform(0.02, 1)), "scores": self._scores(flip=False)}
        if stage == "decorrelate":
            spectrum = np.sort(self.random.exponential(size=self.size))[::-1].tolist()
            row |= {"train_loss_before": 1.39, "train_loss_after": row["train_loss"], "variant": "US"}
            row |= {"spectrum_before": spectrum, "spectrum_after": spectrum}
        cmc = {"input": np.sort(self.random.uniform(0.5, 1, 50)).tolist(), "input_normalized": [0.0] * 50}
        self.lines.append({"kind": "stage", "epoch": row["epochs"], "loss": row["train_loss"], **row, "cmc": cmc})
        self.rows.append(row)

    def write(self, *, scores: bool = True, cut: str = "") -> Path:
        """Write the files. cut: an incomplete line at the end of the log, as after a crash."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(self.config)
        (self.folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in self.lines) + cut)
        if scores:
            (self.folder / "scores.json").write_text(json.dumps(self.summary))
        return self.folder
