"""The configuration: yacs defaults, a YAML file over them, `KEY VALUE` overrides over that, then frozen.

A file may stand on another, whose path beside it is its BASE: then it holds only what differs.

A mistake never comes alone, so all of them are collected and told together, each with the names that come near.
"""

from __future__ import annotations

import ast
import difflib
import math
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from reid.config.choices import CHOICES as CHOICES
from reid.config.choices import INPUT_SIZES as INPUT_SIZES
from reid.config.choices import RENAMED
from reid.config.combinations import mistakes_of, offer
from reid.errors import InputError
from reid.io.json_yaml import flatten, parse_yaml

LONGEST_TEXT = 4096  # letters of a value; no path is longer


def _stage(epochs: int, lr: list[float], schedule: str, milestones: list[float]) -> CfgNode:
    stage = CfgNode()
    stage.EPOCHS = epochs
    stage.LR = lr  # one value a round, the last one repeated
    stage.SCHEDULE = schedule
    stage.MILESTONES = milestones  # of `step`: fractions of the stage at which the rate is multiplied by GAMMA
    stage.GAMMA = 0.1
    stage.WARMUP_EPOCHS = 0.0  # linear rise from a hundredth of the rate
    stage.FREEZE = []  # beginnings of parameter names, or "norm" for the scale and shift of every normalization
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
    c.MODEL.STEM = "standard"  # of a ResNet; no_relu, ceil: as reid-strong-baseline and fast-reid have it
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
    c.MODEL.NORM.NAME = "batch"  # what the backbone normalizes by
    c.MODEL.NORM.GROUPS = 32  # of group
    c.MODEL.NECK = "none"  # before the Eigenlayer; bnneck: batch normalization; fc512: linear to 512, that, ReLU
    c.MODEL.CLASSIFIER = CfgNode()
    c.MODEL.CLASSIFIER.NAME = "linear"
    c.MODEL.CLASSIFIER.SCALE = 16.0  # factor of the cosines: of cosine where it starts, of arcface and cosface fixed
    c.MODEL.CLASSIFIER.MARGIN = 0.0  # of arcface (radians) and cosface (of the cosine); 0: the paper's, 0.5 and 0.35
    c.MODEL.DROPOUT = 0.5
    c.MODEL.EIGENLAYER = CfgNode()
    c.MODEL.EIGENLAYER.DIM = 0  # K; 0: min(1024, D_in)
    c.MODEL.EIGENLAYER.INIT_STD = 0.01
    c.MODEL.EIGENLAYER.BIAS = False  # ablations of the paper
    c.MODEL.EIGENLAYER.RELU = False
    c.MODEL.EIGENLAYER.LAST = False
    c.MODEL.EIGENLAYER.PARAMETRIZATION = "none"  # rivals of RRI: a weight that is orthogonal at every step
    c.MODEL.EIGENLAYER.ORTHOGONAL_MAP = "matrix_exp"  # of a parametrization

    c.INPUT = CfgNode()
    c.INPUT.SIZE = [256, 128]  # height, width
    c.INPUT.RESIZE = "bilinear"  # by which images come to SIZE, with antialiasing
    c.INPUT.FLIP = 0.5  # probability of a mirrored training image
    c.INPUT.PAD = 0  # pixels of padding before the random crop
    c.INPUT.ERASING = 0.0  # probability of random erasing
    c.INPUT.JITTER = CfgNode()  # of colors: the factor is uniform in max(0, 1 - x) .. 1 + x, 0 leaves it alone
    c.INPUT.JITTER.BRIGHTNESS = 0.0
    c.INPUT.JITTER.CONTRAST = 0.0
    c.INPUT.JITTER.SATURATION = 0.0
    c.INPUT.JITTER.HUE = 0.0  # the shift is uniform in -x .. x, 0.5 is half the color circle
    c.INPUT.JITTER.PROBABILITY = 1.0
    c.INPUT.POLICY = "none"  # of torchvision, with its defaults
    c.INPUT.CACHE = "on"  # off: every image is decoded each time it is wanted
    c.INPUT.DEVICE_CACHE = "auto"  # decoded training images in the GPU's memory; auto: where a third of it will do
    c.INPUT.THREADS = 0  # that decode when CACHE is off; 0: one a core
    c.INPUT.CORRUPT = "error"  # a training image that cannot be read; skip: left out and counted
    c.INPUT.MEAN = [0.485, 0.456, 0.406]  # of RGB in [0, 1]
    c.INPUT.STD = [0.229, 0.224, 0.225]

    c.DATASETS = CfgNode()
    c.DATASETS.NAME = "market1501"  # or several to train on together, such as market1501+cuhk01
    c.DATASETS.TARGET = ""  # the dataset to test on; "": the first of NAME
    c.DATASETS.ROOT = ""  # "": the variable REID_DATA, else datasets/
    c.DATASETS.CACHE = ""  # unpacked zips, decoded images; "": the variable REID_CACHE, else ~/.cache/reid
    c.DATASETS.STRICT = True  # the official counts are demanded
    c.DATASETS.IDENTITIES = 1.0  # share of the training identities that is trained on, for quick comparisons
    c.DATASETS.SPLIT_SEED = 0  # of cuhk01 and of a folder without parts: who is tested on
    c.DATASETS.PATTERN = ""  # of folder: where identity and camera stand in a path, such as {identity}_c{camera}*
    c.DATASETS.FOLDER_ROOT = ""  # of folder; "": ROOT
    c.DATASETS.FOLDER_TEST = 0.5  # of a folder without parts: share of the persons to test on
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
    c.SOLVER.TF32 = False  # True: matrix products of the training in TF32 too, not only convolutions, on GPUs with it
    c.SOLVER.FUSED = "auto"  # the optimizer's step as one kernel; auto: on a GPU
    c.SOLVER.COMPILE = False  # the backbone by torch.compile
    c.SOLVER.ACCUMULATE = 1  # batches whose mean gradient makes one step
    c.SOLVER.CLIP = 0.0  # largest norm of a step's gradient; 0: no limit
    c.SOLVER.EMA = 0.0  # decay of the moving average of the weights that every stage ends with, such as 0.999; 0: none
    c.SOLVER.SYNC_BN = False  # BatchNorm sees the whole batch of several processes, on GPUs
    c.SOLVER.NONFINITE = "stop"  # when a loss is NaN or infinite; skip: leave the batch out and count it

    c.CHECKPOINT = CfgNode()
    c.CHECKPOINT.MINUTES = 0.0  # save so often in the middle of an epoch too; 0: after every epoch only

    c.SAMPLER = CfgNode()
    c.SAMPLER.NAME = "shuffled"  # identity: P identities with INSTANCES images each; mined: anchor, match, negatives
    c.SAMPLER.INSTANCES = 4
    c.SAMPLER.NEGATIVES = 2  # of mined: the hardest, mined anew every epoch

    c.LOSS = CfgNode()
    c.LOSS.IDENTITY = 1.0  # weights, 0 for none; label smoothing is SOLVER.LABEL_SMOOTHING
    c.LOSS.TRIPLET = 0.0  # batch-hard
    c.LOSS.CONTRASTIVE = 0.0
    c.LOSS.CIRCLE = 0.0
    c.LOSS.CENTER = 0.0
    c.LOSS.FEATURE = "input"  # of the Eigenlayer: input or output, what all but the identity loss compare
    c.LOSS.TRIPLET_MARGIN = 0.3
    c.LOSS.CONTRASTIVE_TAU = 0.7  # distance at unit length beyond which a pair that does not match costs nothing
    c.LOSS.CIRCLE_MARGIN = 0.25
    c.LOSS.CIRCLE_SCALE = 128.0
    c.LOSS.CENTER_RATE = 0.5  # at which a center follows the features of its identity
    c.LOSS.PENALTY = "none"  # rivals of RRI: what pulls the Eigenlayer's vectors toward orthogonality
    c.LOSS.PENALTY_WEIGHT = 0.0
    c.LOSS.PENALTY_STEPS = [0.0]  # parts of a stage from which on the weight is multiplied by the factor beside it
    c.LOSS.PENALTY_FACTORS = [1.0]

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
    c.TEST.BATCH_SIZE = 64  # on a CPU twice as fast as 256: what a layer leaves stays in the cache
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
        tree = parse_yaml(text) or {}
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
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
        raise InputError(f"{path}: no such configuration{offer(near)}") from None
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
    mistakes += list(mistakes_of(config))
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
        return f"unknown key {key}{offer(near[:3])}"
    *sections, last = key.split(".")
    node = config
    for section in sections:
        node = node[section]
    if isinstance(value, bool) and {"on", "off"} <= set(CHOICES.get(key, ())):
        value = "on" if value else "off"  # YAML reads these words as truth values
    try:
        node[last] = _convert(value, node[last])
    except TypeError as error:
        return f"{key} {error}"
    return None


def _convert(value: Any, default: Any) -> Any:
    """`value`, of YAML or the text of an override, in the type of `default`; a single value may stand for a list."""
    if isinstance(default, str):
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            raise TypeError(f"must be a text, not {reprlib.repr(value)}")
        if len(str(value)) > LONGEST_TEXT:
            raise TypeError(f"must be a text of at most {LONGEST_TEXT:,} letters")
        return str(value)
    if isinstance(value, str):
        value = _literal(value)  # an override; or 1e-3, which YAML reads as a text
    if isinstance(default, list):
        items = list(value) if isinstance(value, (list, tuple)) else [value]
        return [_convert(item, default[0] if default else "") for item in items]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise TypeError(f"must be {_kind(default)} of no more than 64 bits")
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise TypeError(f"must be {_kind(default)}, not {reprlib.repr(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"must be a finite number, not {value}")
    return value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text


def _kind(value: Any) -> str:
    names = {bool: "True or False", int: "an integer", float: "a number", str: "a text", list: "a list"}
    return names[type(value)]
