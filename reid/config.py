"""The configuration: yacs defaults, a YAML file over them, `KEY VALUE` overrides over that, then frozen.

A file may stand on another, whose path beside it is its BASE: then it holds only what differs.

A mistake never comes alone, so all of them are collected and told together, each with the names that come near.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from reid.choices import CHOICES as CHOICES
from reid.choices import INPUT_SIZES as INPUT_SIZES
from reid.choices import RANGES, RENAMED, STAGES
from reid.errors import InputError
from reid.run import flatten


def _stage(epochs: int, lr: list[float], schedule: str, milestones: list[float]) -> CfgNode:
    stage = CfgNode()
    stage.EPOCHS = epochs
    stage.LR = lr  # one value a round, the last one repeated
    stage.SCHEDULE = schedule
    stage.MILESTONES = milestones  # of `step`: fractions of the stage at which the rate is multiplied by GAMMA
    stage.GAMMA = 0.1
    stage.WARMUP_EPOCHS = 0.0  # linear rise from a hundredth of the rate
    stage.FREEZE = []  # beginnings of parameter names, or "norm" for the scale and shift of every normalisation
    stage.SETTLE_EPOCHS = 0  # end early when the training loss has not fallen for this many epochs; 0: never
    stage.SETTLE_TOLERANCE = 0.01  # relative fall of the loss that counts as falling
    stage.OPTIMIZER = ""  # of this stage; "": SOLVER.OPTIMIZER
    stage.LR_FACTORS = []  # such as neck.fc6=0.5: the beginning of parameter names, what their rate is multiplied by
    return stage


def defaults() -> CfgNode:
    """Every key with its default value."""
    c = CfgNode()
    c.OUTPUT_DIR = "runs/svdnet"
    c.SEED = 0
    c.TENSORBOARD = False

    c.MODEL = CfgNode()
    c.MODEL.DEVICE = "auto"  # auto (CUDA where there is one), cpu, cuda, cuda:1, ...
    c.MODEL.BACKBONE = "resnet50"
    c.MODEL.WEIGHTS = "imagenet"  # imagenet (torchvision's download), none (from scratch), or a file
    c.MODEL.LAST_STRIDE = 0  # of a ResNet: 1 or 2; 0: the network's own
    c.MODEL.POOLING = CfgNode()
    c.MODEL.POOLING.NAME = "average"
    c.MODEL.POOLING.L2 = False  # unit length after any pooling but the VLADs, which have it
    c.MODEL.POOLING.P = 3.0  # of gem and its weighted forms: the exponent at the start
    c.MODEL.POOLING.P_PER_CHANNEL = False
    c.MODEL.POOLING.P_LEARNABLE = True
    c.MODEL.POOLING.REGIONS = 4  # of regional_weighted_gem
    c.MODEL.POOLING.LEVELS = 3  # of rmac
    c.MODEL.POOLING.CLUSTERS = 64  # of hard_vlad, netvlad and ghost_vlad
    c.MODEL.POOLING.GHOSTS = 1  # of ghost_vlad
    c.MODEL.POOLING.INIT = "kmeans_v2"  # of the VLADs; kmeans_v1: a softmax without b, from cosines
    c.MODEL.POOLING.DESCRIPTORS = 50000  # local descriptors of the training set that k-means sees
    c.MODEL.NORM = CfgNode()
    c.MODEL.NORM.NAME = "batch"  # what the backbone normalises by
    c.MODEL.NORM.GROUPS = 32  # of group
    c.MODEL.NECK = "none"  # bnneck: batch normalisation before the Eigenlayer
    c.MODEL.CLASSIFIER = CfgNode()
    c.MODEL.CLASSIFIER.NAME = "linear"
    c.MODEL.CLASSIFIER.SCALE = 16.0  # of cosine: what the learnable factor of the cosines starts from
    c.MODEL.DROPOUT = 0.5
    c.MODEL.EIGENLAYER = CfgNode()
    c.MODEL.EIGENLAYER.DIM = 0  # K; 0: min(1024, D_in)
    c.MODEL.EIGENLAYER.INIT_STD = 0.01
    c.MODEL.EIGENLAYER.BIAS = False  # ablations of the paper
    c.MODEL.EIGENLAYER.RELU = False
    c.MODEL.EIGENLAYER.LAST = False

    c.INPUT = CfgNode()
    c.INPUT.SIZE = [256, 128]  # height, width
    c.INPUT.FLIP = 0.5  # probability of a mirrored training image
    c.INPUT.PAD = 0  # pixels of padding before the random crop
    c.INPUT.ERASING = 0.0  # probability of random erasing
    c.INPUT.MEAN = [0.485, 0.456, 0.406]  # of RGB in [0, 1]
    c.INPUT.STD = [0.229, 0.224, 0.225]

    c.DATASETS = CfgNode()
    c.DATASETS.NAME = "market1501"
    c.DATASETS.ROOT = ""  # "": the variable REID_DATA, else datasets/
    c.DATASETS.CACHE = ""  # unpacked zips, decoded images; "": the variable REID_CACHE, else ~/.cache/reid
    c.DATASETS.STRICT = True  # the official counts are demanded
    c.DATASETS.IDENTITIES = 1.0  # share of the training identities that is trained on, for quick comparisons
    c.DATASETS.SYNTHETIC = CfgNode()
    c.DATASETS.SYNTHETIC.SIZE = "demo"
    c.DATASETS.SYNTHETIC.LAYOUT = "market"
    c.DATASETS.SYNTHETIC.SEED = 0

    c.SOLVER = CfgNode()
    c.SOLVER.OPTIMIZER = "sgd"
    c.SOLVER.MOMENTUM = 0.9  # of sgd
    c.SOLVER.AMSGRAD = False  # of adam and adamw
    c.SOLVER.WEIGHT_DECAY = 5e-4
    c.SOLVER.BIAS_LR_FACTOR = 1.0
    c.SOLVER.BIAS_WEIGHT_DECAY = True  # False: biases are not decayed
    c.SOLVER.BATCH_SIZE = 32
    c.SOLVER.LABEL_SMOOTHING = 0.0
    c.SOLVER.NORM_STATISTICS = "running"  # frozen: BatchNorm keeps the statistics it came with
    c.SOLVER.PRECISION = "auto"  # auto: bfloat16 where the hardware has it

    c.STEP0 = _stage(60, [1e-3], "step", [0.4, 0.8])
    c.RESTRAINT = _stage(20, [1e-3], "step", [0.625])
    c.RELAXATION = _stage(20, [1e-3], "step", [0.625])

    c.RRI = CfgNode()
    c.RRI.VARIANT = "US"
    c.RRI.ORDER = "assignment"
    c.RRI.ROTATE_CLASSIFIER = False  # turn the classifier along, so that the logits stay what they were
    c.RRI.MAX_ROUNDS = 7
    c.RRI.PATIENCE = 1  # rounds without a rise of S(W) after which the iteration has converged
    c.RRI.TOLERANCE = 0.01  # a smaller rise of S(W) is none
    c.RRI.FINAL_RESTRAINT = False
    c.RRI.CONTROL = False  # also train the same network for the same epochs without the replacement
    c.RRI.LOSS_IMAGES = 4096  # training images on which the loss before and after a replacement is measured

    c.TEST = CfgNode()
    c.TEST.FEATURE = "input"  # the Eigenlayer's input or output is what `final` reports
    c.TEST.NORMALIZED = False
    c.TEST.FLIP = False
    c.TEST.BATCH_SIZE = 256
    c.TEST.PRECISION = "float32"
    return c


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> CfgNode:
    """Defaults, then the YAML file, over the one it names as BASE if any, then `KEY VALUE` pairs; checked and frozen.

    Raises InputError listing every mistake at once: unknown keys and names (with near ones), wrong types, values out
    of range, combinations that cannot work.
    """
    text, base = read_yaml_text(Path(path)), _base_of(Path(path), ())
    return parse_config(text, overrides, source=str(path), base=base)


def _base_of(path: Path, above: tuple[Path, ...]) -> CfgNode | None:
    """The configuration that a file names as its BASE, a path beside it; None where it names none."""
    tree = _tree(read_yaml_text(path), str(path))
    if "BASE" not in tree:
        return None
    other = path.parent / str(tree["BASE"])
    if other.resolve() in (*above, path.resolve()):
        raise InputError(f"{path}: BASE {tree['BASE']} leads back to itself")
    grand = _base_of(other, (*above, path.resolve()))
    return parse_config(read_yaml_text(other), source=f"{other}, the BASE of {path}", base=grand)


def _tree(text: str, source: str) -> dict[Any, Any]:
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{source}: no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{source}: a configuration is a mapping of keys, not a {type(tree).__name__}")
    return tree


def read_yaml_text(path: Path) -> str:
    """The text of a YAML file. A `.py` file is refused, since yacs would execute it."""
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{path}: a configuration is a .yaml file; other files are not read, Python is never executed")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=3)
        raise InputError(f"{path}: no such configuration{_offer(near)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a text file ({error})") from None


def parse_config(
    text: str, overrides: Sequence[str] = (), *, source: str = "the configuration", base: CfgNode | None = None
) -> CfgNode:
    """`load_config` on the text of a YAML file, such as the one a checkpoint carries; `base` replaces the defaults."""
    config = base.clone() if base else defaults()
    config.defrost()
    mistakes: list[str] = []
    tree = _tree(text, source)
    pairs = list(flatten({key: value for key, value in tree.items() if key != "BASE"}))
    if len(overrides) % 2:
        raise InputError(f"overrides come as KEY VALUE pairs; '{overrides[-1]}' has no value")
    pairs += list(zip(overrides[::2], overrides[1::2], strict=True))
    for key, value in pairs:
        mistake = _set(config, RENAMED.get(key, key), value)
        if mistake:
            mistakes.append(mistake)
    mistakes += list(_check(config))
    if mistakes:
        raise InputError(f"{source}: " + "; ".join(dict.fromkeys(mistakes)))
    config.freeze()
    return config


def completed(text: str) -> str:
    """A configuration that an earlier version wrote, with the keys made since then at their defaults."""
    return parse_config(text).dump()


def _keys(config: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _set(config: CfgNode, key: str, value: Any) -> str | None:
    """Set one key; returns the mistake, if it is one."""
    known = list(_keys(config))
    if key not in known:
        if any(name.startswith(f"{key}.") for name in known):
            return f"{key} is a section, not a value"
        near = difflib.get_close_matches(key.upper(), known, n=3, cutoff=0.5)
        near += [name for name in known if name.split(".")[-1] == key.split(".")[-1].upper() and name not in near]
        return f"unknown key {key}{_offer(near[:3])}"
    *sections, last = key.split(".")
    node = config
    for section in sections:
        node = node[section]
    try:
        node[last] = _convert(value, node[last])
    except TypeError as error:
        return f"{key} {error}"
    return None


def _convert(value: Any, default: Any) -> Any:
    """`value`, of YAML or the text of an override, in the type of `default`; a single value may stand for a list."""
    if isinstance(default, str):
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            raise TypeError(f"must be a text, not {value!r}")
        return str(value)
    if isinstance(value, str):
        value = _literal(value)  # an override; or 1e-3, which YAML reads as a text
    if isinstance(default, list):
        items = list(value) if isinstance(value, (list, tuple)) else [value]
        return [_convert(item, default[0] if default else "") for item in items]
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise TypeError(f"must be {_kind(default)}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"must be a finite number, not {value}")
    return value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _kind(value: Any) -> str:
    names = {bool: "True or False", int: "an integer", float: "a number", str: "a text", list: "a list"}
    return names[type(value)]


def _offer(near: Sequence[str]) -> str:
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _check(c: CfgNode) -> Iterator[str]:
    """Values out of range and combinations that cannot work."""
    for key, names in CHOICES.items():
        for value in _get(c, key).split("+") if key == "DATASETS.NAME" else [_get(c, key)]:
            if value not in names:
                near = difflib.get_close_matches(str(value), names, n=3, cutoff=0.4)
                yield f"{key} {value!r} is none of {', '.join(filter(None, names))}{_offer(near)}"
    for key, (low, high) in RANGES.items():
        if not low <= _get(c, key) <= high:
            yield f"{key} {_get(c, key)} must be {f'{low} to {high}' if high < math.inf else f'{low} or more'}"
    for name in STAGES:
        stage = c[name]
        if not stage.LR or min(stage.LR) <= 0:
            yield f"{name}.LR {stage.LR} must be positive rates"
        if any(not 0 < m < 1 for m in stage.MILESTONES) or sorted(stage.MILESTONES) != stage.MILESTONES:
            yield f"{name}.MILESTONES {stage.MILESTONES} must be rising fractions between 0 and 1"
        for text in stage.LR_FACTORS:
            if rate_factor(text) is None:
                yield f"{name}.LR_FACTORS {text!r} must be a name and a factor above 0, such as neck.fc6=0.5"
        if stage.WARMUP_EPOCHS > stage.EPOCHS:
            yield f"{name}.WARMUP_EPOCHS {stage.WARMUP_EPOCHS} must not exceed EPOCHS"
    if len(c.STEP0.LR) != 1:
        yield f"STEP0.LR {c.STEP0.LR} must be one rate, there is one Step 0"
    if len(c.INPUT.SIZE) != 2 or min(c.INPUT.SIZE) < 16 or max(c.INPUT.SIZE) > 1024:
        yield f"INPUT.SIZE {c.INPUT.SIZE} must be height and width, 16 to 1024 pixels each"
    if len(c.INPUT.MEAN) != 3 or len(c.INPUT.STD) != 3 or min(c.INPUT.STD) <= 0:
        yield "INPUT.MEAN and INPUT.STD must be three numbers each, STD above 0"
    if not c.MODEL.WEIGHTS or not c.OUTPUT_DIR:
        yield "MODEL.WEIGHTS and OUTPUT_DIR must not be empty"
    yield from _check_backbone(c)
    if c.MODEL.LAST_STRIDE and not c.MODEL.BACKBONE.startswith("resnet"):
        yield f"MODEL.LAST_STRIDE {c.MODEL.LAST_STRIDE} is for ResNets; leave it 0 for {c.MODEL.BACKBONE}"
    yield from _check_pooling(c.MODEL.POOLING)
    eigenlayer = c.MODEL.EIGENLAYER
    if eigenlayer.INIT_STD <= 0:
        yield f"MODEL.EIGENLAYER.INIT_STD {eigenlayer.INIT_STD} must be above 0"
    if c.RRI.ROTATE_CLASSIFIER and (eigenlayer.BIAS or eigenlayer.RELU or eigenlayer.LAST):
        yield "RRI.ROTATE_CLASSIFIER needs a plain Eigenlayer before a classifier (BIAS, RELU and LAST False)"
    if c.MODEL.CLASSIFIER.SCALE <= 0:
        yield f"MODEL.CLASSIFIER.SCALE {c.MODEL.CLASSIFIER.SCALE} must be above 0"
    if c.RRI.ROTATE_CLASSIFIER and c.MODEL.CLASSIFIER.NAME == "cosine" and c.RRI.VARIANT not in ("US", "none"):
        yield (
            f"RRI.ROTATE_CLASSIFIER keeps the logits of a cosine classifier only where the turn keeps lengths: "
            f"RRI.VARIANT {c.RRI.VARIANT} does not, US does"
        )
    if eigenlayer.LAST and (eigenlayer.DIM or eigenlayer.RELU):
        yield "MODEL.EIGENLAYER.LAST makes the Eigenlayer the classifier: DIM must be 0 and RELU False"
    if c.SOLVER.NORM_STATISTICS == "frozen" and c.MODEL.WEIGHTS == "none":
        yield (
            "SOLVER.NORM_STATISTICS frozen keeps the BatchNorm statistics of a pretrained network, and MODEL.WEIGHTS "
            "none has no such statistics: give weights, or set SOLVER.NORM_STATISTICS running"
        )


def _check_backbone(c: CfgNode) -> Iterator[str]:
    backbone, norm, size = c.MODEL.BACKBONE, c.MODEL.NORM.NAME, INPUT_SIZES.get(c.MODEL.BACKBONE)
    if size and size != c.INPUT.SIZE:
        yield f"INPUT.SIZE {c.INPUT.SIZE} must be {size} for {backbone}, which takes no others"
    if c.MODEL.POOLING.NAME == "flatten" and not size:
        yield f"MODEL.POOLING.NAME flatten needs maps of one size ({', '.join(INPUT_SIZES)}), not those of {backbone}"
    if norm.startswith("ibn_") and not backbone.startswith("resnet"):
        yield f"MODEL.NORM.NAME {norm} is for ResNets, not for {backbone}"
    if norm != "batch" and backbone in ("caffenet", "deepface"):
        yield f"MODEL.NORM.NAME {norm} replaces batch normalisation, and {backbone} has none: leave it batch"
    if c.SOLVER.NORM_STATISTICS == "frozen":
        if c.MODEL.NECK == "bnneck":
            yield "SOLVER.NORM_STATISTICS frozen leaves a BNNeck, which is new, without any: set MODEL.NECK none"
        if norm not in ("batch", "sync_batch", "ibn_a", "ibn_b"):
            yield f"SOLVER.NORM_STATISTICS frozen keeps BatchNorm statistics, and MODEL.NORM.NAME {norm} has none"


def rate_factor(text: str) -> tuple[str, float] | None:
    """The two halves of `neck.fc6=0.5`; None where it is not of that form or the factor is not above 0."""
    name, _, factor = text.partition("=")
    try:
        value = float(factor)
    except ValueError:
        return None
    return (name.strip(), value) if name.strip() and 0 < value < math.inf else None


def _check_pooling(pooling: CfgNode) -> Iterator[str]:
    if pooling.P <= 0:
        yield f"MODEL.POOLING.P {pooling.P} must be above 0: 1 is the average, 3 is usual"
    clusters = pooling.CLUSTERS + (pooling.GHOSTS if pooling.NAME == "ghost_vlad" else 0)
    if pooling.NAME.endswith("vlad") and pooling.INIT != "random" and clusters > pooling.DESCRIPTORS:
        yield f"MODEL.POOLING.DESCRIPTORS {pooling.DESCRIPTORS} must be at least the {clusters} clusters of k-means"


def _get(config: CfgNode, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config
