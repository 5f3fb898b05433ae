"""SVDNet with Lightning: a trainer for each stage (`pip install lightning`, or the extra `lightning`).

python examples/lightning_loop.py
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from pedestrians import Stage, compare_with_control, tiny_pedestrians
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from reid.decorrelation import RRI, restrained


class Network(LightningModule):
    def __init__(self, classes: int, dim: int = 64) -> None:
        super().__init__()
        self.trunk = resnet18(num_classes=1)
        self.embedding = nn.Linear(self.trunk.fc.in_features, dim)  # a bias is rotated with the weight
        self.trunk.fc = nn.Identity()
        self.classifier = nn.Linear(dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.embedding(self.trunk(images)))

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return functional.cross_entropy(self(batch[0]), batch[1])  # self(...), where RRI looks for a ReLU

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)


def train(model: LightningModule, batches: DataLoader, epochs: int) -> None:
    """One stage: a new trainer, and with it a new optimizer."""
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(max_epochs=epochs, accelerator="cpu", devices=1, enable_model_summary=False, **quiet).fit(model, batches)


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
