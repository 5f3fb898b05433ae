"""Calibrate the distances of a model: thresholds for false-match rates, and the match probability."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from reid import Embedder
from reid.config import build
from reid.data import split_table
from reid.errors import InputError, check_count
from reid.inference.calibration import Calibration, calibrate
from reid.inference.embedder import DEMO
from reid.io.atomic import write_json
from reid.io.checkpoint import load_checkpoint, save_checkpoint
from reid.io.feature_files import read_features
from reid.io.safetensors_files import save_safetensors
from reid.records import Features, ImageRecord
from reid.report.calibration import calibration_tables
from reid.report.tables import render_tables

_NUM_VERIFIED = 4  # images whose features are recomputed
_MIN_COSINE = 0.999  # of a feature and the same one recomputed


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    check_count("--seed", arguments.seed, minimum=0)
    embedder = content = None
    stamp = (0, 0, 0)
    if arguments.weights:
        if arguments.weights == DEMO:
            raise InputError(f"--weights demo: calibrations are not stored in the package; give a copy of {DEMO}")
        stamp = _stamp(arguments.weights) if arguments.weights.is_file() else stamp
        content = load_checkpoint(arguments.weights)  # of this project, since the calibration is stored in it
        embedder = Embedder.load(
            arguments.weights,
            device=arguments.device,
            engine=arguments.engine,
            feature=arguments.feature,
            flip=arguments.flip,
        )
    if arguments.features:
        if arguments.overrides or arguments.config_file:
            raise InputError("--features takes no configuration: omit --config-file and KEY VALUE")
        dataset = arguments.features.name
        query, gallery, name = read_features(arguments.features)
        if embedder:
            _check_origin(embedder, (query, gallery), name, arguments.features)
    elif embedder and content:
        dataset, query, gallery = _embed(embedder, content, arguments)
    else:
        raise InputError(
            "give --weights, --features, or both: features to calibrate on and the checkpoint that extracted them"
        )
    calibration = calibrate(
        query,
        gallery,
        model_id=embedder.model_id if embedder else "",
        dataset=dataset,
        rates=arguments.rates,
        prior=arguments.prior,
        replicates=arguments.replicates,
        seed=arguments.seed,
    )
    plain = calibration.to_plain()
    print(render_tables(calibration_tables(plain), arguments.format, plain), file=arguments.result)
    if arguments.output:
        write_json(arguments.output, plain)
        print(f"wrote {arguments.output}")
    if content is not None:
        _store(arguments.weights, content, calibration, stamp)
        print(f"stored in {arguments.weights}, where svdnet search uses it")


def _embed(
    embedder: Embedder, content: dict[str, Any], arguments: argparse.Namespace
) -> tuple[str, Features, Features]:
    """The dataset's name and the features of its query and gallery, embedded from files as in later use."""
    config = build.evaluation_config(embedder.config, arguments.config_file, arguments.overrides)
    build.use_threads(config)
    split = build.split(config)
    print(split_table(split), flush=True)
    return split.name, _features(embedder, split.query), _features(embedder, split.gallery)


def _features(embedder: Embedder, images: tuple[ImageRecord, ...]) -> Features:
    paths = tuple(image.path for image in images)
    values = embedder.embed(paths, progress=True)
    identities, cameras = (np.array([getattr(i, name) for i in images]) for name in ("identity", "camera"))
    return Features(values, identities, cameras, paths)


def _check_origin(embedder: Embedder, sides: tuple[Features, Features], name: str, path: Path) -> None:
    """Raise InputError if the features were not extracted by the model."""
    width = sides[0].values.shape[1]
    if width != embedder.dim:
        raise InputError(
            f"{path}: features have {width} dimensions, and the {embedder.feature} of the model has {embedder.dim}"
        )
    if {name, embedder.feature} == {"input", "output"}:
        raise InputError(f"{path}: contains features of the Eigenlayer's {name}; give --feature {name}")
    available = [index for index, file in enumerate(sides[0].paths) if Path(file).is_file()][:_NUM_VERIFIED]
    if not available:
        print(f"{path}: its images do not exist here, so it is not verified that this model extracted its features")
        return
    stored = np.asarray(sides[0].values[np.array(available)], dtype=np.float64)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    cosine = (stored * embedder.embed([sides[0].paths[index] for index in available])).sum(axis=1)
    if cosine.min() < _MIN_COSINE:
        file = sides[0].paths[available[int(cosine.argmin())]]
        raise InputError(
            f"{path}: the features were extracted by a different model: for {file} the cosine with the checkpoint's is "
            f"{cosine.min():.3f}"
        )


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _store(path: Path, content: dict[str, Any], calibration: Calibration, stamp: tuple[int, int, int]) -> None:
    write = save_safetensors if path.suffix == ".safetensors" else save_checkpoint
    if _stamp(path) != stamp:
        raise InputError(f"{path}: changed since it was read, for example by a running training; calibrate it again")
    write(path, {**content, "calibration": calibration.to_plain()})
