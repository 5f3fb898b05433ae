"""The digest of everything that an embedding depends on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from yacs.config import CfgNode

from reid.config import build
from reid.model.network import ReidNetwork


def compute_model_id(
    network: ReidNetwork, config: CfgNode, *, feature: str = "input", flip: bool = False, precision: str = "float32"
) -> str:
    """Compute a digest of structure, preprocessing, feature, and every tensor but the classifier's.

    Args:
        network: The network as it was loaded, before batch normalization is folded.
        config: Frozen configuration; reads INPUT and MODEL.
        feature: The Eigenlayer's "input" or "output".
        flip: Whether features are averaged with those of the mirror image.
        precision: Precision of the backbone, "float32" or "bfloat16".

    Returns:
        64 hexadecimal digits; only embeddings with the same digest may be compared.
    """
    structure: dict[str, Any] = {"input": build.preprocessing(config), "model": build.structure(config)}
    options = {**structure, "feature": feature, "flip": flip}
    if precision != "float32":
        options["precision"] = precision
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for name, tensor in sorted(network.state_dict().items()):
        if name.startswith("classifier.") or name.endswith("num_batches_tracked"):
            continue
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"\0{name} {values.dtype} {values.shape}\0".encode())
        digest.update(values.data)
    return digest.hexdigest()
