"""Synthetic pedestrians as tensors, which the examples beside this file train on and are evaluated with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from reid import evaluate
from reid.data import DATASETS
from reid.data.images.decode import decode_image
from reid.decorrelation import RRI
from reid.records import Features, ImageRecord, Split

Stage = Callable[[nn.Module], None]


@dataclass(frozen=True)
class Pedestrians:
    split: Split
    size: tuple[int, int]

    def load(self, records: Sequence[ImageRecord]) -> Tensor:
        pixels = torch.stack([torch.from_numpy(decode_image(record.path, self.size)) for record in records])
        return pixels / 127.5 - 1

    def training_set(self) -> tuple[Tensor, Tensor]:
        """Return images (N, 3, H, W) and labels (N,) from 0."""
        labels = self.split.train_labels()
        return self.load(self.split.train), torch.tensor([labels[record.identity] for record in self.split.train])

    @torch.no_grad()
    def compare(self, *trained: tuple[str, nn.Module, RRI]) -> None:
        """Print S(W) and mAP of networks with a `trunk` and an `embedding`, and of the iterations that trained them."""
        for name, network, rri in trained:
            embed = nn.Sequential(*map(network.get_submodule, ("trunk", "embedding"))).eval()
            query, gallery = (
                Features(embed(self.load(part)).numpy(), [r.identity for r in part], [r.camera for r in part])  # type: ignore[arg-type]
                for part in (self.split.query, self.split.gallery)
            )
            rounds = f"{len(rri.history)} rounds, {rri.stopped}"
            print(f"{name:8} S(W) {rri.history[-1]:.3f}, mAP {evaluate(query, gallery).mAP:.1%} ({rounds})")


def compare_with_control(people: Pedestrians, model: nn.Module, stage: Stage, svdnet: Callable[..., RRI]) -> None:
    """Train Step 0, RRI, and a control: longer training helps by itself, so it has as much without the replacement."""
    stage(model)
    control = copy.deepcopy(model)
    rri = svdnet(model, stage, rounds=3, tolerance=0.01)
    without = svdnet(control, stage, rounds=len(rri.history), tolerance=None, variant="none")
    people.compare(("RRI", model, rri), ("control", control, without))


def tiny_pedestrians(size: tuple[int, int], cache: Path) -> Pedestrians:
    """Generate the smallest dataset on first use: 8 identities and 24 queries, enough to see that code runs."""
    return Pedestrians(DATASETS["synthetic"](cache, cache=cache, size="tiny"), size)
