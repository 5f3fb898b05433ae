"""Batch normalization worked into the convolution before it, for networks that are not trained any more."""

from __future__ import annotations

import copy
from collections import Counter

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized


def fold_norms(trunk: nn.Module) -> nn.Module:
    """A copy of `trunk` in evaluation mode that computes the same up to rounding, without its batch normalizations.

    Only those go whose statistics are fixed and that follow a plain convolution used once. A network whose course
    depends on its values is given back as a copy.
    """
    trunk = copy.deepcopy(trunk).eval()
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
    """Goes into modules that have others inside, and takes the rest as they are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children()) or super().is_leaf_module(m, module_qualified_name)


def _replace(trunk: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(trunk.get_submodule(parent), child, module)
