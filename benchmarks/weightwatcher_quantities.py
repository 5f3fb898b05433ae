"""Our spectral quantities beside those of the package weightwatcher, layer by layer.

    python benchmarks/weightwatcher_quantities.py [--networks resnet18 ...] [--layers 5] [--bulk]

The networks are torchvision's, and two of ours, with random weights; every layer has at most `--layers` of its network
beside it, evenly spaced, 0 for all. For each quantity the table lists how many values were compared, how many agree
within 1 %, and the largest relative difference. weightwatcher runs with `conv2d_norm=False`, without which it halves
the eigenvalues of convolutions. Shuffled quantities are random; theirs and ours are one shuffle each. `--bulk` adds
weightwatcher's fit of the bulk, which takes seconds per layer, and the edge that the variance of the entries predicts.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torchvision
from measuring import benchmark_parser, show
from torch import nn

from reid.diagnostics.spectral import describe_spectrum
from reid.diagnostics.weights import Layer

NETWORKS = ("resnet18", "squeezenet1_1", "googlenet", "densenet121", "vit_b_16", "mobilenet_v3_small", "ours")
EXACT = (
    *("N", "M", "Q", "rf", "num_evals", "alpha", "xmin", "D", "sigma", "num_pl_spikes", "norm", "log_norm"),
    *("spectral_norm", "log_spectral_norm", "stable_rank", "alpha_weighted", "log_alpha_norm", "matrix_rank"),
    *("rank_loss", "entropy", "detX_num"),
)
RANDOM = ("max_rand_eval", "ww_softrank", "rand_distance")
BULK = ("bulk_max", "sigma_mp", "mp_softrank", "num_spikes")


def main() -> None:
    parser = benchmark_parser(__doc__, layers=5)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--bulk", action="store_true")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for name in arguments.networks:
        torch.manual_seed(0)
        compared = list(compare(chosen(network(name), arguments.layers), bulk=arguments.bulk))
        print(f"{name}: {len(compared)} layers compared", flush=True)
        pairs += compared
    keys = (*EXACT, *RANDOM, *(BULK if arguments.bulk else ()))
    beside = f"{arguments.layers} layers of each" if arguments.layers else "all layers"
    show(rows(pairs, keys), "weightwatcher", f"{beside}: {', '.join(arguments.networks)}", arguments.save)


def rows(pairs: list[tuple[dict[str, Any], dict[str, Any]]], keys: Iterable[str]) -> Iterator[dict[str, str]]:
    """Compare each quantity over all layers."""
    for key in keys:
        both = [(ours[key], theirs[key]) for ours, theirs in pairs if ours.get(key) is not None]
        differences = [abs(a - b) / max(abs(b), 1e-12) if a != b else 0.0 for a, b in both]
        yield {
            "quantity": key,
            "compared": str(len(both)),
            "within 1 %": str(sum(d < 0.01 for d in differences)),
            "largest difference": f"{max(differences, default=0.0):.2e}",
        }


def network(name: str) -> nn.Module:
    """A network with random weights."""
    if name == "ours":
        from reid.model.backbones import build_backbone

        return nn.ModuleDict(
            {name: build_backbone(name, weights=None, source="none") for name in ("osnet_x0_25", "resnet50")}
        )
    options = {"init_weights": True} if name == "googlenet" else {}
    return torchvision.models.get_model(name, weights=None, **options)


def chosen(model: nn.Module, count: int) -> nn.ModuleDict:
    """Evenly spaced linear and convolution layers without groups, which weightwatcher disregards."""
    found = {
        name.replace(".", "-"): module
        for name, module in model.named_modules()
        # Heads that start at zero have no spectrum.
        if isinstance(module, (nn.Linear, nn.Conv2d)) and getattr(module, "groups", 1) == 1 and module.weight.any()
    }
    names = list(found)
    kept = names if count == 0 else [names[i] for i in np.linspace(0, len(names) - 1, count).astype(int)]
    return nn.ModuleDict({name: found[name] for name in dict.fromkeys(kept)})


def compare(layers: nn.ModuleDict, *, bulk: bool) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Our values and theirs of each layer that both describe."""
    import weightwatcher

    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        watcher = weightwatcher.WeightWatcher(model=layers)
        table = watcher.analyze(randomize=True, detX=True, mp_fit=bulk, conv2d_norm=False)
    middle, pairs = time.process_time(), []
    for row in table.to_dict("records"):
        weight = layers.get_parameter(f"{row['longname']}.weight")
        ours = describe_spectrum(Layer(row["longname"], weight))
        assert ours is not None
        if bulk and row["M"] > 1:
            deviation = float(weight.detach().std())
            edge = (deviation * (math.sqrt(row["N"]) + math.sqrt(row["M"]))) ** 2
            values = " ".join(f"{key} {ours[key]:.4g} {row[key]:.4g}" for key in BULK)
            print(f"  {row['longname']}: ours, theirs: {values}; edge of independent entries {edge:.4g}")
        pairs.append((ours, row))
    print(f"  CPU seconds: theirs {middle - start:.1f}, ours {time.process_time() - middle:.1f}")
    return pairs


if __name__ == "__main__":
    main()
