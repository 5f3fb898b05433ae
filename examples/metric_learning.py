"""SVDNet in a loop of metric learning: identity and triplet loss, batches of P identities with K images each.

    python examples/metric_learning.py

A batch normalization follows the embedding (BNNeck): the triplet loss uses what comes before it, the classifier what
comes after it. Retrieval uses the embedding, whose distances decorrelation keeps; the original BNNeck takes what comes
after.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from pedestrians import Stage, compare_with_control, tiny_pedestrians
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

from reid.data.loading.samplers import identity_batches
from reid.decorrelation import RRI, restrained
from reid.losses.pairwise import triplet_loss


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


def svdnet(model: Network, stage: Stage, **options: Any) -> RRI:
    rri = RRI(model, model.embedding, **options)
    for report in rri:
        print(report)
        with restrained(model.embedding):
            stage(model)
        stage(model)
    return rri


def main(size: tuple[int, int] = (64, 32), epochs: int = 2, cache: Path = Path("datasets")) -> None:
    torch.manual_seed(0)
    people = tiny_pedestrians(size, cache)
    images, labels = people.training_set()
    model = Network(classes=int(labels.max()) + 1)
    compare_with_control(people, model, partial(train, images=images, labels=labels, epochs=epochs), svdnet)


if __name__ == "__main__":
    main()
