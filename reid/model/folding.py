"""Folding of batch normalization into the preceding convolution, for networks in inference."""

from __future__ import annotations

import copy
from collections import Counter

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized

from reid.model.normalization.batch_norms import has_activation


def fold_norms(trunk: nn.Module) -> nn.Module:
    """Copy a network without its batch normalizations; the copy computes the same up to rounding.

    Only batch normalizations with fixed statistics after a plain convolution that is used once are folded.

    Args:
        trunk: Network to copy, in any mode; it is not changed.

    Returns:
        The copy in evaluation mode; unchanged if the network cannot be traced because its control flow depends on
        values.
    """
    trunk = copy.deepcopy(trunk)
    _split_activations(trunk)
    trunk.eval()
    try:
        graph = _WholeLayers().trace(trunk)
    except (fx.proxy.TraceError, TypeError):
        return trunk
    modules = dict(trunk.named_modules())
    uses = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in list(graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        norm, convolution = modules[str(node.target)], modules[str(before.target)]
        once = uses[node.target] == uses[before.target] == 1
        if not once or type(norm) is not nn.BatchNorm2d or type(convolution) is not nn.Conv2d:
            continue
        if norm.running_mean is None or is_parametrized(convolution) or is_parametrized(norm):
            continue
        _replace(trunk, str(before.target), fuse_conv_bn_eval(convolution, norm))
        node.replace_all_uses_with(before)
        graph.erase_node(node)
    folded = fx.GraphModule(trunk, graph)
    folded.delete_all_unused_submodules()
    return folded


class _WholeLayers(fx.Tracer):
    """Tracer that enters modules with submodules and keeps all others as leaves."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children()) or super().is_leaf_module(m, module_qualified_name)


def _split_activations(trunk: nn.Module) -> None:
    """Replace the normalizations of timm that apply an activation by the normalization and the activation."""
    for name, module in list(trunk.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and has_activation(module):
            norm = nn.BatchNorm2d(module.num_features, module.eps, module.momentum, module.affine)
            norm.load_state_dict(module.state_dict())
            trunk.set_submodule(name, nn.Sequential(norm, module.drop, module.act))  # type: ignore[arg-type]


def _replace(trunk: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(trunk.get_submodule(parent), child, module)
