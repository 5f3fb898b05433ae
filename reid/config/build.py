"""From a configuration to objects: the only room below `tools/` that reads one."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from reid.config.checks import rate_factor
from reid.config.keys import KEYS
from reid.config.loading import defaults, load_config, parse_config
from reid.config.records import record_from
from reid.data.augmentation.augment import Augmentation
from reid.data.augmentation.jitter import Jitter
from reid.data.datasets import DATASETS
from reid.data.datasets.combine import combine
from reid.data.datasets.market1501 import read_hand_labeled_boxes
from reid.data.datasets.pattern import compile_pattern
from reid.data.datasets.subset import subset_identities
from reid.data.images.cache import decode_images
from reid.data.images.pixels import DecodedImages, ImageFiles, move_to_device
from reid.data.loading.loaders import TestLoader, TrainLoader
from reid.data.loading.samplers import Sampler
from reid.data.loading.whole_images import WholeImage, WholeImageLoader
from reid.data.threads import available_cores
from reid.distributed import process_info
from reid.errors import InputError
from reid.io.checkpoint import load_checkpoint, load_state_dict
from reid.io.json_yaml import flatten
from reid.losses.objective import LossWeights, Objective
from reid.model.backbones import build_backbone
from reid.model.classifiers import build_classifier
from reid.model.eigenlayer import Eigenlayer, build_eigenlayer, last_layer_vector_count
from reid.model.necks import BNNeck, build_neck
from reid.model.network import ReidNetwork, is_whole_network, load_before_eigenlayer
from reid.model.pooling import build_pooling, pooling_options
from reid.model.precision import autocast_dtype
from reid.model.pretrained import load_pretrained
from reid.records import ImageRecord, Split
from reid.svdnet.plan import Plan
from reid.training.optimizer import Solver
from reid.training.schedule import Schedule


@dataclass(frozen=True)
class Loaders:
    """Training, query and gallery images of a split, decoded."""

    train: TrainLoader
    query: TestLoader
    gallery: TestLoader


def device(config: CfgNode) -> torch.device:
    """The device of MODEL.DEVICE, of several processes on a host each its own. Raises InputError for one not there."""
    name, here = config.MODEL.DEVICE, process_info()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and here.world_size > 1:
        name = f"cuda:{here.local_rank}"
    try:
        found = torch.device(name)
    except RuntimeError:
        raise InputError(f"MODEL.DEVICE {name!r} is no device; use auto, cpu, cuda or cuda:N") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError(f"MODEL.DEVICE {name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    if found.type == "cuda" and here.local_world_size > 1 and found.index != here.local_rank:
        raise InputError(
            f"MODEL.DEVICE {name!r}: {here.local_world_size} processes on this host take a GPU each; use cuda"
        )
    if found.type not in ("cpu", "cuda"):
        raise InputError(f"MODEL.DEVICE {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    return found


def cache_folder(config: CfgNode) -> Path:
    """Where unpacked and decoded data are kept."""
    return Path(config.DATASETS.CACHE or os.environ.get("REID_CACHE") or "~/.cache/reid").expanduser()


def split(config: CfgNode) -> Split:
    """The datasets of DATASETS.NAME together, to be tested on DATASETS.TARGET, their counts checked.

    Only the share DATASETS.IDENTITIES of the training persons is kept.
    """
    d = config.DATASETS
    names = d.NAME.split("+")
    options = {name: _reader_options(d, name) for name in (*names, _tested(config))}

    def read(name: str) -> Split:
        root = Path(d.FOLDER_ROOT).expanduser() if name == "folder" and d.FOLDER_ROOT else _root(config)
        return DATASETS[name](root, strict=d.STRICT, cache=cache_folder(config), **options[name])

    return subset_identities(combine(names, d.TARGET, read), d.IDENTITIES)


def _tested(config: CfgNode) -> str:
    """The dataset whose query and gallery are used."""
    return config.DATASETS.TARGET or config.DATASETS.NAME.split("+")[0]


def _reader_options(datasets: CfgNode, name: str) -> dict[str, Any]:
    """What the reader of this name takes beside the root. Raises InputError for a wrong DATASETS.PATTERN."""
    if name == "synthetic":
        synthetic = datasets.SYNTHETIC
        return {"size": synthetic.SIZE, "layout": synthetic.LAYOUT, "seed": synthetic.SEED}
    if name == "cuhk01":
        return {"seed": datasets.SPLIT_SEED}
    if name == "folder":
        compile_pattern(datasets.PATTERN)
        return {"pattern": datasets.PATTERN, "test": datasets.FOLDER_TEST, "seed": datasets.SPLIT_SEED}
    return {}


def _root(config: CfgNode) -> Path:
    return Path(config.DATASETS.ROOT or os.environ.get("REID_DATA") or "datasets").expanduser()


def train_loader(config: CfgNode, data: Split) -> TrainLoader:
    """The training images, with class labels 0..n-1."""
    labels = data.train_labels()
    return TrainLoader(
        images=_train_images(config, data.train),
        labels=np.array([labels[image.identity] for image in data.train], dtype=np.int64),
        batch_size=config.SOLVER.BATCH_SIZE,
        augmentation=record_from(config.INPUT, Augmentation, jitter=record_from(config.INPUT.JITTER, Jitter)),
        device=device(config),
        sampler=_sampler(config),
        paths=tuple(image.path for image in data.train),
        on_corrupt=config.INPUT.CORRUPT,
    )


def _sampler(config: CfgNode) -> Sampler:
    return record_from(config.SAMPLER, Sampler)


def test_loader(config: CfgNode, images: tuple[ImageRecord, ...]) -> TestLoader:
    """Query or gallery images in order."""
    return TestLoader(
        images=_images(config, images),
        identities=np.array([image.identity for image in images], dtype=np.int64),
        cameras=np.array([image.camera for image in images], dtype=np.int64),
        paths=tuple(image.path for image in images),
        batch_size=config.TEST.BATCH_SIZE,
        mean=tuple(config.INPUT.MEAN),
        std=tuple(config.INPUT.STD),
        device=device(config),
    )


def whole_loader(
    config: CfgNode, images: Sequence[WholeImage], *, longest_side: int, batch_size: int
) -> WholeImageLoader:
    """Whole images in order, normalized as the network was trained."""
    return WholeImageLoader(
        images,
        mean=tuple(config.INPUT.MEAN),
        std=tuple(config.INPUT.STD),
        device=device(config),
        longest_side=longest_side,
        batch_size=batch_size,
    )


def pool_loader(config: CfgNode, data: Split) -> TestLoader | None:
    """The hand-drawn boxes of the queries' persons under the queries' cameras; None where the dataset has none."""
    if not _tested(config).startswith("market1501"):
        return None
    wanted = {(image.identity, image.camera) for image in data.query}
    boxes = read_hand_labeled_boxes(_root(config), cache=cache_folder(config))
    images = tuple(image for image in boxes if (image.identity, image.camera) in wanted)
    return test_loader(config, images) if images else None


def loaders(config: CfgNode, data: Split) -> Loaders:
    """All three parts."""
    query, gallery = test_loader(config, data.query), test_loader(config, data.gallery)
    return Loaders(train_loader(config, data), query, gallery)


def _train_images(config: CfgNode, images: tuple[ImageRecord, ...]) -> DecodedImages | ImageFiles:
    """As `_images`, on the device where they fit; images that cannot be read are noted where that is no error."""
    found = _images(config, images, {} if config.INPUT.CORRUPT == "skip" else None)
    return found if isinstance(found, ImageFiles) else move_to_device(found, device(config), config.INPUT.DEVICE_CACHE)


def _images(
    config: CfgNode, images: tuple[ImageRecord, ...], corrupt: dict[int, str] | None = None
) -> DecodedImages | ImageFiles:
    """The images at INPUT.SIZE, decoded now or, with INPUT.CACHE off, when they are wanted."""
    height, width = config.INPUT.SIZE
    paths = [image.path for image in images]
    if config.INPUT.CACHE == "off":
        threads = config.INPUT.THREADS or max(1, available_cores() // process_info().local_world_size)
        return ImageFiles(paths, (height, width), threads, config.INPUT.RESIZE)
    how: dict[str, Any] = {"size": (height, width), "resize": config.INPUT.RESIZE, "cache": cache_folder(config)}
    return DecodedImages(decode_images(paths, **how, corrupt=corrupt), corrupt or {})


def pretrained(config: CfgNode) -> dict[str, Tensor] | None:
    """The published weights of MODEL.WEIGHTS, or None for a network from scratch."""
    roots = [Path(os.environ["REID_WEIGHTS"])] if os.environ.get("REID_WEIGHTS") else []
    tensors = load_pretrained(config.MODEL.BACKBONE, config.MODEL.WEIGHTS, roots=roots)
    return None if tensors is None else dict(tensors)


def network(config: CfgNode, *, num_classes: int, weights: dict[str, Tensor] | None = None) -> ReidNetwork:
    """Compose the network from the section MODEL.

    Args:
        config: the configuration.
        num_classes: number of training identities.
        weights: state dict returned by `pretrained`, or None for a network from scratch. Of a whole network, everything
            before the Eigenlayer is loaded.

    Returns:
        The network, on the CPU.

    Raises:
        InputError: if parts do not fit each other or the weights do not fit.
    """
    model = config.MODEL
    published = None if is_whole_network(weights) else weights
    backbone = build_backbone(
        model.BACKBONE,
        weights=published,
        last_stride=model.LAST_STRIDE or None,
        stem=model.STEM,
        norm=model.NORM.NAME,
        norm_groups=model.NORM.GROUPS,
        source=model.WEIGHTS,
    )
    pooling = build_pooling(model.POOLING.NAME, backbone, **_pooling_options(model.POOLING))
    pooled = pooling.width(backbone.out_channels)
    neck = build_neck(model.BACKBONE, pooled, fc512=model.NECK == "fc512", weights=published, source=model.WEIGHTS)
    eigenlayer = _eigenlayer(model.EIGENLAYER, neck.out_features, num_classes)
    classifier = None if model.EIGENLAYER.LAST else _classifier(model.CLASSIFIER, eigenlayer, num_classes)
    bnneck = BNNeck(neck.out_features) if model.NECK == "bnneck" else None
    composed = ReidNetwork(backbone, pooling, neck, eigenlayer, classifier, model.DROPOUT, bnneck)
    if model.NORM.NAME == "sync_batch":
        nn.SyncBatchNorm.convert_sync_batchnorm(composed)
    if weights is not None and published is None:
        load_before_eigenlayer(composed, weights, source=model.WEIGHTS)
    return composed


def _eigenlayer(settings: CfgNode, d_in: int, num_classes: int) -> Eigenlayer:
    k = last_layer_vector_count(d_in, settings.DIM, num_classes) if settings.LAST else settings.DIM
    return build_eigenlayer(
        d_in,
        k,
        bias=settings.BIAS,
        relu=settings.RELU,
        init_std=settings.INIT_STD,
        parametrization=settings.PARAMETRIZATION,
        orthogonal_map=settings.ORTHOGONAL_MAP,
    )


def _classifier(settings: CfgNode, eigenlayer: Eigenlayer, num_classes: int) -> nn.Linear:
    return build_classifier(
        settings.NAME, eigenlayer.out_features, num_classes, scale=settings.SCALE, margin=settings.MARGIN
    )


def _pooling_options(pooling: CfgNode) -> dict[str, Any]:
    """The keys of MODEL.POOLING that the chosen pooling has; the others are ignored."""
    return {option: pooling[option.upper()] for option in pooling_options(pooling.NAME)}


def load_network(path: Path) -> tuple[ReidNetwork, CfgNode]:
    """The network of a checkpoint of ours, on the CPU in evaluation mode, and the configuration it carries."""
    return network_of(load_checkpoint(path), source=str(path))


def network_of(content: Mapping[str, Any], *, source: str) -> tuple[ReidNetwork, CfgNode]:
    """`load_network` of the content of a checkpoint; source: what errors call it."""
    config = parse_config(content["config"], source=f"the configuration in {source}")
    _check_size(config, content, source)
    model = network(config, num_classes=content["num_classes"])
    load_state_dict(model, content["model"], network="the configuration it carries", source=source)
    return model.eval(), config


def config_of(pairs: Sequence[str], *, source: str) -> CfgNode:
    """The configuration of KEY VALUE pairs, all else at its default."""
    return parse_config("", pairs, source=source)


def _check_size(config: CfgNode, content: Mapping[str, Any], source: str) -> None:
    """Raise InputError for a checkpoint whose configuration claims a far larger network, before memory is taken."""
    bare = config.clone()
    bare.defrost()
    # Setting up a parametrization reads the weight's values, and it has as many parameters as the plain weight.
    bare.MODEL.EIGENLAYER.PARAMETRIZATION = "none"
    held = sum(tensor.numel() for tensor in content["model"].values())
    try:
        with torch.device("meta"):
            tensors = network(bare, num_classes=content["num_classes"]).state_dict().values()
        claimed: float = sum(tensor.numel() for tensor in tensors)
    except (RuntimeError, OverflowError, TypeError):  # more than a tensor can have
        claimed = math.inf
    if content["num_classes"] < 1 or claimed > 2 * held + 1_000_000:
        raise InputError(
            f"{source}: its configuration with {content['num_classes']} classes describes a network of {claimed:,} "
            f"numbers, and it holds {held:,}"
        )


def preprocessing(config: CfgNode) -> dict[str, Any]:
    """What happens to an image before the network sees it: `size` (height, width), `resize` (the filter), `mean`,
    `std` of RGB in [0, 1]."""
    given = config.INPUT
    return {"size": tuple(given.SIZE), "resize": given.RESIZE, "mean": tuple(given.MEAN), "std": tuple(given.STD)}


def tested_feature(config: CfgNode) -> str:
    """The Eigenlayer's "input" or "output", whichever TEST.FEATURE says."""
    return str(config.TEST.FEATURE)


def structure(config: CfgNode) -> dict[str, Any]:
    """The keys of MODEL on which an embedding depends, where they are not at their defaults.

    Keys that a later version adds have defaults under which a network is what it was, so this stays the same.
    """
    plain = dict(flatten(defaults().MODEL))
    return {
        key: value for key, value in flatten(config.MODEL) if value != plain[key] and KEYS[f"MODEL.{key}"].structural
    }


def evaluation_config(trained: CfgNode, path: Path | None, overrides: Sequence[str]) -> CfgNode:
    """The configuration a checkpoint carries, with DATASETS and TEST of another file and `KEY VALUE` pairs over it.

    Images keep the size and normalization that the network was trained with, unless a pair says otherwise.
    """
    config = trained.clone()
    config.defrost()
    if path:
        other = load_config(path)
        config.DATASETS, config.TEST = other.DATASETS.clone(), other.TEST.clone()
    return parse_config("", overrides, base=config)


def objective(config: CfgNode, model: ReidNetwork, *, num_classes: int) -> Objective:
    """What a training of `model` minimizes. Raises InputError where a loss needs a library that is missing."""
    loss = config.LOSS
    d_in, k = model.eigenlayer.vectors.shape
    weights = record_from(
        loss,
        LossWeights,
        label_smoothing=config.SOLVER.LABEL_SMOOTHING,
        tuple_size=_sampler(config).tuple_size,
        penalty_steps=tuple(zip(loss.PENALTY_STEPS, loss.PENALTY_FACTORS, strict=True)),
    )
    return Objective(weights, classes=num_classes, width={"input": d_in, "output": k}[loss.FEATURE])


def plan(config: CfgNode) -> Plan:
    """Collect the settings of a training run.

    Args:
        config: The configuration.

    Returns:
        The schedules of the stages, the solver, and how the iteration goes.

    Raises:
        InputError: If the precision is not available on the device.
    """
    on = device(config)
    solver = record_from(
        config.SOLVER,
        Solver,
        dtype=autocast_dtype(config.SOLVER.PRECISION, on),
        seed=config.SEED,
        fused={"auto": on.type == "cuda", "always": True, "never": False}[config.SOLVER.FUSED],
    )
    stages = {name: _schedule(config[name.upper()]) for name in ("step0", "restraint", "relaxation")}
    return record_from(config.RRI, Plan, solver=solver, **stages)


def _schedule(stage: CfgNode) -> Schedule:
    factors = tuple(pair for text in stage.LR_FACTORS if (pair := rate_factor(text)))
    return record_from(stage, Schedule, lr_factors=factors)
