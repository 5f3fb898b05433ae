"""Effects of a network's Eigenlayer on a dataset: feature statistics, weight replacements and compression."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reid.config.build import Loaders
from reid.data.loading.loaders import TestLoader, TrainLoader
from reid.diagnostics.changes import compare_features
from reid.diagnostics.compression import pca_rows, ranks_up_to, truncated_rows
from reid.diagnostics.feature_statistics import describe_features
from reid.diagnostics.geometry import describe_geometry
from reid.diagnostics.replacements import Head, equalities, output_features, replacement_rows
from reid.evaluation.features import Network, extract
from reid.evaluation.retrieval import score
from reid.model.network import ReidNetwork
from reid.records import JUNK, Features, score_list
from reid.training.seeding import seed_from


@dataclass(frozen=True)
class DatasetDiagnosisOptions:
    """Options of `diagnose_dataset`.

    Attributes:
        seed: Seed of all random choices; with a training's seed the loss is measured on the images that this training
            uses before and after a replacement.
        name: Name of the dataset.
        loss_images: Number of training images on which the loss is measured.
        label_smoothing: Label smoothing of that loss.
        order: Order of the columns in US and U, see `reid.decorrelation.replace_weight`.
        pairs: Number of random pairs of images whose distances are compared.
    """

    seed: int
    name: str = ""
    loss_images: int = 4096
    label_smoothing: float = 0.0
    order: str = "assignment"
    pairs: int = 20_000


@dataclass(frozen=True)
class _Inputs:
    """The Eigenlayer's input for every image of a dataset; the identities of `train` are classes."""

    query: Features
    gallery: Features
    train: Features


def diagnose_dataset(
    model: ReidNetwork, loaders: Loaders, *, options: DatasetDiagnosisOptions, engine: Network | None = None
) -> dict[str, Any]:
    """Measure what the Eigenlayer does to the features and the retrieval of a dataset.

    Every image is embedded once; everything else is computed in float64 on the CPU.

    Args:
        model: Network on the device of the images; unchanged.
        loaders: Training, query and gallery images.
        options: See `DatasetDiagnosisOptions`.
        engine: What embeds the images in place of the network.

    Returns:
        The entry "dataset" of `diagnosis.json`, plain values: "features" holds the result of `describe_features` for
        the Eigenlayer's "input" and, unless it is the identity, "output", over "retrieval" (query and gallery without
        junk) and "train" (not augmented); "geometry" that of
        `describe_geometry` for the same images without distractors; "input_scores" the SCOREs of the input, which no
        replacement changes; "replacements", "equalities",
        "truncated_svd" and "pca" are documented at the functions that compute them. If the classes of the network are
        not those of the dataset, "loss_images" is 0 and losses are None.

    Raises:
        InputError: If features are constant or not finite.
    """
    inputs = _extract(engine or model, loaders)
    query, gallery, train = inputs.query, inputs.gallery, inputs.train
    head, classes = Head.from_model(model), len(np.unique(train.identities))
    index = loaders.train.sample_index(options.loss_images, _loss_seed(options.seed)).numpy()
    loss_inputs = _rows(train, index) if head.classes == classes else None
    smoothing, order = options.label_smoothing, options.order
    rows = replacement_rows(head, query, gallery, loss_inputs, label_smoothing=smoothing, order=order)
    ranks = ranks_up_to(min(head.weight.shape))
    pairs_seed = seed_from(options.seed, "pairs of images")
    return {
        "name": options.name,
        "counts": _counts(inputs, classes),
        "eigenlayer": _describe_eigenlayer(head),
        "classes": head.classes,
        "loss_images": len(loss_inputs.values) if loss_inputs else 0,
        "label_smoothing": smoothing,
        "order": order,
        "features": _statistics(head, inputs),
        "geometry": _geometry(head, inputs, seed_from(options.seed, "uniformity")),
        "input_scores": score_list(score({("input", False): (query, gallery)})),
        "replacements": rows,
        "equalities": equalities(head, query, gallery, rows, pairs=options.pairs, seed=pairs_seed, order=order),
        "truncated_svd": truncated_rows(head, query, gallery, loss_inputs, ranks=ranks, label_smoothing=smoothing),
        "pca": pca_rows(query, gallery, train, ranks=ranks),
    }


def compare_embeddings(after: tuple[Network, Loaders], before: tuple[Network, Loaders]) -> dict[str, Any]:
    """Compare the features that two networks give the query and gallery images.

    Args:
        after: Network after a change, or an engine that runs it, and its query and gallery images.
        before: The same before it, of the same images.

    Returns:
        "input" and "output", the two sides of the Eigenlayer, each with the result of `compare_features`. Junk is
        included, as both networks see the same images.

    Raises:
        InputError: If features are constant or not finite.
    """
    sides = []
    for network, loaders in (after, before):
        parts = [
            extract(network, loader, title=title)
            for title, loader in (("query", loaders.query), ("gallery", loaders.gallery))
        ]
        sides.append({name: np.concatenate([part[name].values for part in parts]) for name in ("input", "output")})
    return {name: compare_features(sides[0][name], sides[1][name]) for name in ("input", "output")}


def _extract(model: Network, loaders: Loaders) -> _Inputs:
    train = _in_order(loaders.train, loaders.gallery.batch_size)
    named = (("query", loaders.query), ("gallery", loaders.gallery), ("training images", train))
    return _Inputs(*(extract(model, loader, title=title)["input"] for title, loader in named))


def _in_order(train: TrainLoader, batch_size: int) -> TestLoader:
    """The training images without augmentation and in their order, with classes as identities."""
    return TestLoader(
        images=train.images,
        identities=train.labels,
        cameras=np.zeros_like(train.labels),
        paths=[""] * len(train.labels),
        batch_size=batch_size,
        mean=train.augmentation.mean,
        std=train.augmentation.std,
        device=train.device,
    )


def _loss_seed(seed: int) -> int:
    return seed_from(seed, "loss before and after a replacement")


def _counts(inputs: _Inputs, classes: int) -> dict[str, int]:
    return {
        "train": len(inputs.train.values),
        "train_identities": classes,
        "query": len(inputs.query.values),
        "gallery": len(inputs.gallery.values),
        "junk": int((inputs.gallery.identities == JUNK).sum()),
    }


def _describe_eigenlayer(head: Head) -> dict[str, Any]:
    d_in, k = head.weight.shape
    return {
        "d_in": d_in,
        "k": k,
        "bias": head.bias is not None,
        "relu": head.relu,
        "last": head.classifier is None,
        "parameters": d_in * k,
    }


def _statistics(head: Head, inputs: _Inputs) -> dict[str, Any]:
    """Statistics of the Eigenlayer's input and output over the images of the retrieval and of the training.

    An output that equals the input is left out.
    """
    gallery = _rows(inputs.gallery, np.flatnonzero(inputs.gallery.identities != JUNK))
    statistics: dict[str, Any] = {name: {} for name in (("input",) if head.is_identity else ("input", "output"))}
    for part, features in (("retrieval", (inputs.query, gallery)), ("train", (inputs.train,))):
        statistics["input"][part] = describe_features(np.concatenate([f.values for f in features]))
        if "output" in statistics:
            statistics["output"][part] = describe_features(
                np.concatenate([output_features(head, f).values for f in features])
            )
    return statistics


def _geometry(head: Head, inputs: _Inputs, seed: int) -> dict[str, Any]:
    """Geometry of the Eigenlayer's input and output; with the classifier, for its own input and classes."""
    query, gallery = inputs.query, inputs.gallery
    retrieval = Features(
        np.concatenate([query.values, gallery.values]),
        np.concatenate([query.identities, gallery.identities]),
        np.concatenate([query.cameras, gallery.cameras]),
    )
    # Classes are counted from 0, which means a distractor elsewhere.
    train = dataclasses.replace(inputs.train, identities=inputs.train.identities + 1, paths=())
    result: dict[str, Any] = {"input": {}}
    for part, features in (("retrieval", retrieval), ("train", train)):
        result["input"][part] = describe_geometry(features, seed=seed)
    if head.is_identity:
        return result
    result["output"] = {"retrieval": describe_geometry(output_features(head, retrieval), seed=seed)}
    last, output = head.classifier, output_features(head, inputs.train)
    weight = None if last is None or not isinstance(last.weight, torch.Tensor) else last.weight.detach().numpy()
    if weight is not None and weight.shape[1] == output.values.shape[1] and last is not None:
        bias = None if last.bias is None else last.bias.detach().numpy()
        result["output"]["train"] = describe_geometry(output, classifier=weight, bias=bias, seed=seed)
    else:
        result["output"]["train"] = describe_geometry(output_features(head, train), seed=seed)
    return result


def _rows(features: Features, index: np.ndarray) -> Features:
    return dataclasses.replace(
        features,
        values=features.values[index],
        identities=features.identities[index],
        cameras=features.cameras[index],
        paths=(),
    )
