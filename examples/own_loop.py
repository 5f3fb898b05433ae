"""SVDNet in a plain PyTorch loop, with torchvision's ResNet-18 and synthetic pedestrians.

It takes one or two minutes on two cores:

    python examples/own_loop.py
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from reid import evaluate
from reid.data import DATASETS
from reid.data.images.decode import decode_image
from reid.decorrelation import RRI, restrained
from reid.records import Features, ImageRecord


class Network(nn.Module):
    def __init__(self, classes: int, dim: int = 64) -> None:
        super().__init__()
        self.trunk = resnet18(num_classes=1)
        self.embedding = nn.Linear(
            self.trunk.fc.in_features, dim, bias=False
        )  # directly before the classifier, without ReLU
        self.trunk.fc = nn.Identity()
        self.classifier = nn.Linear(dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.embedding(self.trunk(images)))


def load(records: Sequence[ImageRecord], size: tuple[int, int]) -> Tensor:
    pixels = torch.stack([torch.from_numpy(decode_image(record.path, size)) for record in records])
    return pixels / 127.5 - 1


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


@torch.no_grad()
def features(model: Network, records: Sequence[ImageRecord], size: tuple[int, int]) -> Features:
    values = model.eval().embedding(model.trunk(load(records, size)))
    return Features(values.numpy(), [r.identity for r in records], [r.camera for r in records])  # type: ignore[arg-type]


def main(size: tuple[int, int] = (64, 32), epochs: int = 2, cache: Path = Path("datasets")) -> None:
    torch.manual_seed(0)
    split = DATASETS["synthetic"](cache, cache=cache, size="tiny")
    labels = torch.tensor([split.train_labels()[record.identity] for record in split.train])
    batches = DataLoader(TensorDataset(load(split.train, size), labels), batch_size=16, shuffle=True, drop_last=True)
    model = Network(classes=int(labels.max()) + 1)
    train(model, batches, epochs)  # Step 0
    control = copy.deepcopy(model)

    rri = RRI(model, model.embedding, rounds=3, tolerance=0.01)
    for report in rri:
        print(report)
        with restrained(model.embedding):
            train(model, batches, epochs)
        train(model, batches, epochs)
    print(f"S(W) after each round: {', '.join(f'{value:.3f}' for value in rri.history)} ({rri.stopped})")

    # Longer training helps by itself: the control has as much of it, without the replacement.
    for _ in RRI(control, control.embedding, rounds=len(rri.history), tolerance=None, variant="none"):
        with restrained(control.embedding):
            train(control, batches, epochs)
        train(control, batches, epochs)
    for name, network in (("RRI", model), ("control", control)):
        scores = evaluate(features(network, split.query, size), features(network, split.gallery, size))
        print(f"{name:8} mAP {scores.mAP:.1%}")


if __name__ == "__main__":
    main()
