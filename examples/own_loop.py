"""SVDNet in a plain PyTorch loop, with a network of timm and synthetic pedestrians.

It takes one or two minutes on two cores (`pip install timm`, or the extra `timm`):

    python examples/own_loop.py
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from pedestrians import Stage, compare_with_control, tiny_pedestrians
from timm import create_model
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from reid.decorrelation import RRI, restrained


class Network(nn.Module):
    def __init__(self, classes: int, dim: int = 64) -> None:
        super().__init__()
        self.trunk = create_model("resnet18", num_classes=0)
        # Directly before the classifier, without ReLU.
        self.embedding = nn.Linear(self.trunk.num_features, dim, bias=False)  # type: ignore[arg-type]
        self.classifier = nn.Linear(dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.embedding(self.trunk(images)))


def train(model: nn.Module, batches: DataLoader, epochs: int) -> None:
    """One stage, with an optimizer and a schedule of its own."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    model.train()
    for _ in range(epochs):
        for images, labels in batches:
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
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
    data = TensorDataset(*people.training_set())
    batches = DataLoader(data, batch_size=16, shuffle=True, drop_last=True)
    model = Network(classes=int(data.tensors[1].max()) + 1)
    compare_with_control(people, model, partial(train, batches=batches, epochs=epochs), svdnet)


if __name__ == "__main__":
    main()
