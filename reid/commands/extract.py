"""Extract features of a large set of images shard by shard, in one process or several with torchrun; resumable."""

from __future__ import annotations

import argparse

from reid.config import build
from reid.data import split_table
from reid.distributed import gather, get_world_size, local_main_first, process_group, restart_command
from reid.errors import InputError, Interrupted, stop_signals
from reid.evaluation.extraction import ShardOptions, extract_shards
from reid.evaluation.features import distinct_features
from reid.inference.conversion import load_network
from reid.inference.engines.engine import open_engine
from reid.model.precision import autocast_dtype


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    with stop_signals(), process_group():
        try:
            _extract(arguments)
        except KeyboardInterrupt:
            again = restart_command(arguments.program, arguments.arguments)
            raise Interrupted(f"interrupted; finished shards are kept. To resume: {again}") from None


def _extract(arguments: argparse.Namespace) -> None:
    if arguments.shard < 1:
        raise InputError(f"--shard {arguments.shard}: must be at least 1 image")
    model, trained = load_network(arguments.weights)
    # Each image is read once, and a decoded copy of a large set takes more space than its features.
    overrides = ("INPUT.CACHE", "off", *arguments.overrides)
    config = build.evaluation_config(trained, arguments.config_file, overrides)
    build.use_threads(config)
    device = build.device(config)
    dtype = autocast_dtype(config.TEST.PRECISION, device)
    with local_main_first():
        split = build.split(config)
        print(split_table(split), flush=True)
    engine = open_engine(model.to(device), config, dtype=dtype)
    images = sum(len(getattr(split, part)) for part in arguments.part)
    engine.expect(images // get_world_size() * (1 + config.TEST.FLIP))
    options = ShardOptions(
        shard_size=arguments.shard,
        features=distinct_features(model) if arguments.feature == "both" else (arguments.feature,),
        flip=config.TEST.FLIP,
        engine=engine,
    )
    extracted = extract_shards(
        model,
        {part: build.test_loader(config, getattr(split, part)) for part in arguments.part},
        arguments.output,
        options,
        settings={
            "dataset": split.name,
            "input": build.preprocessing(config),
            "network": build.structure(config),
            "precision": str(dtype or "float32").removeprefix("torch."),
        },
    )
    by_process = gather(extracted)
    for part in extracted:
        total, now = len(getattr(split, part)), sum(counts[part] for counts in by_process)
        print(f"{part}: {total:,} images in {-(-total // arguments.shard)} shards, {now} of them extracted now")
    feature = arguments.output / ("input" if arguments.feature == "both" else arguments.feature)
    print(f"embedded by {engine.name}")
    print(f"wrote {arguments.output}; to score: svdnet evaluate --features {feature}")
