"""The scores of a network at the end of a stage, and what RRI repairs against its control."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

import torch
from yacs.config import CfgNode

from reid.config import build
from reid.diagnostics.examples import TOP, describe_examples
from reid.diagnostics.ranked_lists import RankedLists, ranked_lists
from reid.distributed import all_reduce_max, get_world_size, is_main_process, run_on_main
from reid.evaluation.retrieval import FeatureSets, choose_features, network_features, score_together
from reid.inference.engines.engine import Engine, open_engine
from reid.io.atomic import write_json
from reid.io.checkpoint import load_checkpoint
from reid.model.network import ReidNetwork
from reid.records import Scores
from reid.report.examples import FILE as EXAMPLES
from reid.training.run_folder import RunFolder


@dataclass
class StageScoring:
    """Scores a network, at the end of a run with the flip test too.

    One engine embeds in all stages, so that a resumed run ends with the same scores: for ENGINE auto the one that the
    first evaluation chose, which `notes` records in `scores.json`.

    Where the control ends, it also writes the queries that RRI has repaired and broken. The network at the end of RRI
    is embedded again only if that was in an earlier process.

    Attributes:
        config: Configuration of the run.
        loaders: Its query and gallery images.
        dtype: Precision of the backbone; None for float32.
        folder: Run folder, in which the examples are written.
        notes: What to record in `scores.json`.
        control: Whether the next network is that of the control.
        rri: Ranked lists at the end of RRI; None before it, and in other processes than the main one.
    """

    config: CfgNode
    loaders: build.Loaders
    dtype: torch.dtype | None
    folder: RunFolder
    notes: dict[str, Any]
    control: bool = False
    rri: RankedLists | None = None

    def __call__(self, model: ReidNetwork, last: bool) -> tuple[Scores, ...]:
        """Score a network.

        Args:
            model: The network at the end of a stage.
            last: Whether the run ends with this stage.

        Returns:
            The scores of both Eigenlayer features, normalized or not, with and without flip where `last` is set.
        """
        features = self._embed(model, (False, True) if last else (self.config.TEST.FLIP,))
        if last and self.config.RRI.CONTROL:
            self._compare(model, features)
        return score_together(features)

    def _embed(self, model: ReidNetwork, flips: tuple[bool, ...]) -> FeatureSets:
        engine = self._open(model)
        engine.expect((len(self.loaders.query.paths) + len(self.loaders.gallery.paths)) * len(flips))
        features = network_features(engine, self.loaders.query, self.loaders.gallery, flips=flips)
        self.notes.setdefault("engine", engine.name)
        return features

    def _open(self, model: ReidNetwork) -> Engine:
        name = self.notes.get("engine") if self.config.ENGINE == "auto" else self.config.ENGINE
        on_cpu = next(model.parameters()).device.type == "cpu" and self.dtype is None
        # Several processes might choose different ones, and a run that began on a CPU may go on on a GPU.
        if self.config.ENGINE == "auto" and (not on_cpu or (name is None and get_world_size() > 1)):
            name = "torch"
        # The network changes from stage to stage, so its export is of no further use.
        return open_engine(model, self.config, engine=name, dtype=self.dtype, keep=False)

    def _compare(self, model: ReidNetwork, features: FeatureSets) -> None:
        if not self.control:
            self.rri = self._lists(features)
            return
        if all_reduce_max(int(is_main_process() and self.rri is None)):
            network = copy.deepcopy(model)
            content = run_on_main(lambda: load_checkpoint(self.folder.checkpoints / "rri_last.pth"))
            network.load_state_dict(content["model"])
            self.rri = self._lists(self._embed(network, (self.config.TEST.FLIP,)))
        control = self._lists(features)
        if self.rri and control:  # of the main process
            query, gallery = choose_features(features, **final_score(self.config))
            found = describe_examples(query, gallery, after=("RRI", self.rri), before=("control", control))
            write_json(self.folder.path / EXAMPLES, found)

    def _lists(self, features: FeatureSets) -> RankedLists | None:
        if not is_main_process():
            return None
        return ranked_lists(*choose_features(features, **final_score(self.config)), top=TOP)


def recorded_engine(folder: RunFolder) -> dict[str, Any]:
    """Read which engine has embedded in the finished stages of a run.

    Args:
        folder: Run folder.

    Returns:
        "engine" and its name; empty if no stage is finished.
    """
    try:
        content = json.loads((folder.path / "scores.json").read_text(encoding="utf-8"))
        return {"engine": str(content.get("engine", "torch"))}  # that of earlier versions
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def final_score(config: CfgNode) -> dict[str, Any]:
    """Choose the score by which a run is judged.

    Args:
        config: Configuration of the run.

    Returns:
        The arguments `feature`, `normalized` and `flip` of `choose_features`.
    """
    return {"feature": config.TEST.FEATURE, "normalized": config.TEST.NORMALIZED, "flip": config.TEST.FLIP}
