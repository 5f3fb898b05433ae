"""SVDNet in a loop of metric learning: identity and triplet loss, batches of P identities with K images each.

    python examples/metric_learning.py

A batch normalization follows the embedding, as in many baselines (BNNeck): the triplet loss and retrieval use what
comes before it, the classifier what comes behind it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

from reid import evaluate
from reid.data import DATASETS
from reid.data.images.decode import decode_image
from reid.data.loading.samplers import identity_batches
from reid.decorrelation import RRI, restrained
from reid.losses.pairwise import triplet_loss
from reid.records import Features, ImageRecord


class Network(nn.Module):
    def __init__(self, classes: int, dim: int = 64) -> None:
        super().__init__()
        self.trunk = resnet18(num_classes=1)
        self.embedding = nn.Linear(self.trunk.fc.in_features, dim, bias=False)
        self.trunk.fc = nn.Identity()
        self.head = nn.Sequential(nn.BatchNorm1d(dim), nn.Linear(dim, classes, bias=False))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.embedding(self.trunk(images))
        return embeddings, self.head(embeddings)


def load(records: Sequence[ImageRecord], size: tuple[int, int]) -> Tensor:
    pixels = torch.stack([torch.from_numpy(decode_image(record.path, size)) for record in records])
    return pixels / 127.5 - 1


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """One stage, with an optimizer and a schedule of its own."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(epochs):
        for rows in identity_batches(labels, batch_size=16, instances=4, generator=generator):
            embeddings, logits = model(images[rows])
            loss = functional.cross_entropy(logits, labels[rows]) + triplet_loss(embeddings, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()


@torch.no_grad()
def features(model: Network, records: Sequence[ImageRecord], size: tuple[int, int]) -> Features:
    values, _ = model.eval()(load(records, size))
    return Features(values.numpy(), [r.identity for r in records], [r.camera for r in records])  # type: ignore[arg-type]


def main(size: tuple[int, int] = (64, 32), epochs: int = 2, cache: Path = Path("datasets")) -> None:
    torch.manual_seed(0)
    split = DATASETS["synthetic"](cache, cache=cache, size="tiny")
    images, labels = load(split.train, size), [split.train_labels()[record.identity] for record in split.train]
    data = images, torch.tensor(labels)
    model = Network(classes=max(labels) + 1)
    train(model, *data, epochs)  # Step 0
    control = copy.deepcopy(model)

    rri = RRI(model, model.embedding, rounds=3, tolerance=0.01)
    for report in rri:
        print(report)
        with restrained(model.embedding):
            train(model, *data, epochs)
        train(model, *data, epochs)
    print(f"S(W) after each round: {', '.join(f'{value:.3f}' for value in rri.history)} ({rri.stopped})")

    # Longer training helps by itself: the control has as much of it, without the replacement.
    for _ in RRI(control, control.embedding, rounds=len(rri.history), tolerance=None, variant="none"):
        with restrained(control.embedding):
            train(control, *data, epochs)
        train(control, *data, epochs)
    for name, network in (("RRI", model), ("control", control)):
        scores = evaluate(features(network, split.query, size), features(network, split.gallery, size))
        print(f"{name:8} mAP {scores.mAP:.1%}")


if __name__ == "__main__":
    main()
