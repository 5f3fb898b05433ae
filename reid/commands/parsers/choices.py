"""Choices and defaults of options, repeated here because the modules that own them take seconds to import.

`tests/commands/test_parsers.py` compares them with those modules.
"""

from __future__ import annotations

FEATURES = ("input", "output")
ENGINES = ("auto", "torch", "onnxruntime", "openvino")
FORMATS = ("table", "markdown", "json", "csv")
METRICS = ("euclidean", "cosine")
PROTOCOLS = ("market", "single-shot", "multi-query")
EXPANSIONS = ("aqe", "alpha")
WHITENINGS = ("pca", "learned")
RERANKING = {"k1": 20, "k2": 6, "weight": 0.3, "distance_power": 2}
PARTS = ("query", "gallery", "train")
COMBINATIONS = ("mean", "gem")
LONGEST_SIDE = 1024  # pixels
MAPS = ("tsne", "pca")
FAMILIES = ("layumi", "reid-strong-baseline", "fast-reid", "torchreid")
EXPORT_FORMATS = ("onnx", "torch")
PREPROCESSINGS = ("tracker", "inside")
UNKNOWN_LICENSE = "unknown"
FALSE_MATCH_RATES = (1e-2, 1e-3, 1e-4)
REPLICATES = 500
CROP_PATTERNS = ("market1501", "dukemtmcreid", "cuhk03np", "msmt17")
TOKEN_VARIABLE = "REID_TOKEN"
