"""Checkpoints of networks that have never been trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from foreign_models import randomize_norms
from yacs.config import CfgNode

from reid.config import build
from reid.io.checkpoint import save_checkpoint


def save_untrained(
    path: Path, config: CfgNode, *, classes: int = 3, seed: int = 0, normed: bool = False, **more: Any
) -> Path:
    """Save a random network, `normed` with statistics as after a training, and what else the checkpoint holds."""
    torch.manual_seed(seed)
    network = build.network(config, num_classes=classes)
    if normed:
        randomize_norms(network)
    content = {"model": dict(network.state_dict()), "config": config.dump(), "num_classes": classes}
    save_checkpoint(path, {**content, **more})
    return path
