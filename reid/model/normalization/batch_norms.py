"""The batch normalizations of a network and the convolutions before them."""

from __future__ import annotations

from torch import nn

from reid.errors import InputError


def batch_norms(root: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """List every batch normalization of maps.

    Args:
        root: Module to search, with all its submodules.

    Returns:
        The modules by name, in the order in which they are registered.
    """
    return {name: module for name, module in root.named_modules() if isinstance(module, nn.BatchNorm2d)}


def synchronize_batch_norms(root: nn.Module) -> nn.Module:
    """Replace every batch normalization by one that shares its statistics between processes.

    Args:
        root: Module to change in place.

    Returns:
        The module; a new one if it is a batch normalization itself.
    """
    for name, module in list(root.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            convert = nn.SyncBatchNorm.convert_sync_batchnorm
            if has_activation(module):  # of timm, whose activation PyTorch's conversion drops
                from timm.layers import convert_sync_batchnorm as convert
            if not name:
                return convert(module)
            root.set_submodule(name, convert(module))
    return root


def has_activation(norm: nn.Module) -> bool:
    """Whether a normalization applies an activation too, as those of many networks of timm do.

    Args:
        norm: The normalization.

    Returns:
        False for those of PyTorch.
    """
    return isinstance(getattr(norm, "act", None), nn.Module)


def normalized_convolutions(root: nn.Module, network: str) -> dict[str, tuple[str, nn.Conv2d]]:
    """Find the convolution before every batch normalization.

    It is the last layer with a weight matrix that is registered before it.

    Args:
        root: Module to search, with all its submodules.
        network: Its name in error messages.

    Returns:
        Name and module of the convolution, by the name of the batch normalization.

    Raises:
        InputError: If that layer is not a convolution with the same number of channels.
    """
    found: dict[str, tuple[str, nn.Conv2d]] = {}
    last, last_name = root, ""
    for name, module in root.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            if not isinstance(last, nn.Conv2d) or last.out_channels != module.num_features:
                raise InputError(
                    f"{network}: {name} follows {last_name} ({type(last).__name__}), and weights can be normalized "
                    "only in plain convolutions; use another MODEL.NORM.NAME"
                )
            found[name] = (last_name, last)
        elif any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)):
            last, last_name = module, name
    return found
