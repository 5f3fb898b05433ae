"""Where a network normalizes."""

from __future__ import annotations

from torch import nn

from reid.errors import InputError


def batch_norms(root: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """Every batch normalization of maps, by name, in the order in which the network registers them."""
    return {name: module for name, module in root.named_modules() if isinstance(module, nn.BatchNorm2d)}


def normalized_convolutions(root: nn.Module, network: str) -> dict[str, tuple[str, nn.Conv2d]]:
    """For every batch normalization, by name, the name and the convolution whose output it takes.

    That is the layer with a weight matrix registered last before it. Raises InputError where it is none.
    """
    found: dict[str, tuple[str, nn.Conv2d]] = {}
    last, last_name = root, ""
    for name, module in root.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            if not isinstance(last, nn.Conv2d) or last.out_channels != module.num_features:
                raise InputError(
                    f"{network}: {name} follows {last_name} ({type(last).__name__}), and normalized weights are for "
                    "plain convolutions; take another MODEL.NORM.NAME"
                )
            found[name] = (last_name, last)
        elif any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)):
            last, last_name = module, name
    return found
