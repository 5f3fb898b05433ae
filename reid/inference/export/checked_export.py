"""From a network to the bytes of a file that has been compared with it."""

from __future__ import annotations

import json

from torch import Tensor

from reid.inference.export.files import LIMITS, check_answer, onnx_answer, to_onnx, to_torch, torch_answer
from reid.inference.export.metadata import Facts, metadata
from reid.inference.export.network import expected, trace
from reid.model.network import ReidNetwork


def checked_file(network: ReidNetwork, facts: Facts, pixels: Tensor, *, format: str) -> tuple[bytes, float]:
    """The file's bytes, and the largest difference of its answers to `network` on pixels (N, 3, H, W) uint8 RGB.

    format: "onnx" or "torch". network: on the CPU, in evaluation mode.
    Raises InputError where the difference is above LIMITS and for networks that cannot be exported.
    """
    program, told = trace(network, facts.form), metadata(facts)
    if format == "onnx":
        data = to_onnx(program, told)
        answer = onnx_answer(data)
    else:
        data = to_torch(program, json.dumps(told, indent=1))
        answer = torch_answer(data)
    wanted = expected(network, pixels, facts.form)
    return data, check_answer(answer, pixels, wanted, facts.form, limit=LIMITS[format])
