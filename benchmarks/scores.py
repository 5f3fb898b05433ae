"""What a finished run scores: with other weights, fewer dimensions, re-ranking, expansion and whitening.

    python benchmarks/scores.py RUN [--whitenings pca learned] [--dimensions 512 128] [--save FOLDER] [KEY VALUE ...]

RUN is the folder of a run of SVDNet with a control. The checkpoints after Step 0 and at the end of RRI and of its
control are diagnosed as by `svdnet diagnose`, and their Eigenlayer's input is whitened; what else `svdnet evaluate` can
do with features is done with the input at the end of RRI.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from measuring import benchmark_parser, show
from yacs.config import CfgNode

from reid.commands.diagnose import diagnosis_options
from reid.config import build
from reid.diagnostics.dataset import diagnose_dataset
from reid.errors.command import run_command
from reid.evaluation.protocols import EvaluationOptions, evaluate_features
from reid.evaluation.retrieval import FeatureSets, VariantFeatures, embed, network_features
from reid.evaluation.whitening import WHITENINGS, WhiteningOptions
from reid.inference.conversion import load_network
from reid.inference.engines.engine import Engine, open_engine
from reid.model.precision import autocast_dtype
from reid.ranking import RerankOptions
from reid.records import Split
from reid.report.diagnosis_tables import replacement_table
from reid.report.tables import percent

CHECKPOINTS = {"Step 0": "rri_step0.pth", "RRI": "rri_last.pth", "control": "control_last.pth"}
RANKS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
# What is done with rows of length 1.
EXPANSIONS = {
    "AQE, 5 neighbors": EvaluationOptions(expand="aqe"),
    "alpha-QE, 5 neighbors": EvaluationOptions(expand="alpha", neighbors=5),
    "alpha-QE, 10 neighbors": EvaluationOptions(expand="alpha"),
    "alpha-QE, 20 neighbors": EvaluationOptions(expand="alpha", neighbors=20),
    "database augmentation, 10 neighbors": EvaluationOptions(augment=True),
    "both, 10 neighbors": EvaluationOptions(expand="alpha", augment=True),
}


class Opened(NamedTuple):
    """A checkpoint, its dataset, and what embeds it."""

    config: CfgNode
    split: Split
    engine: Engine
    diagnosis: dict[str, Any]


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--whitenings", nargs="+", default=list(WHITENINGS), choices=list(WHITENINGS))
    parser.add_argument("--dimensions", type=int, nargs="+", default=[512, 128], help="of the whitened features")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE")
    arguments = parser.parse_args()
    opened = {
        name: diagnose(arguments.run / "checkpoints" / file, arguments.overrides) for name, file in CHECKPOINTS.items()
    }
    config, split = opened["RRI"].config, opened["RRI"].split
    about = f"{split.name}, {config.MODEL.BACKBONE}, {' x '.join(map(str, config.INPUT.SIZE))}"
    diagnosed = {name: found.diagnosis for name, found in opened.items()}
    show(replacements(diagnosed), "replacements", f"{about}, rank-1 / mAP of the Eigenlayer's output", arguments.save)
    show(geometry(diagnosed), "geometry", f"{about}, query and gallery images without junk", arguments.save)
    show(compressed(diagnosed), "compressed", f"{about}, rank-1 / mAP, raw", arguments.save)
    features = {name: embed_input(found) for name, found in opened.items()}
    of_input = f"{about}, Eigenlayer input at the end of RRI, rank-1 / mAP / mINP"
    show(expanded(features["RRI"][0]), "expansion", of_input, arguments.save)
    about = f"{about}, Eigenlayer input, rank-1 / mAP, whitening fitted to the training images"
    settings = list(product(arguments.whitenings, arguments.dimensions))
    show(whitened(features, settings), "whitening", about, arguments.save)


def diagnose(checkpoint: Path, overrides: list[str]) -> Opened:
    """Open a checkpoint and diagnose what its Eigenlayer does to the dataset it was trained for."""
    model, trained = load_network(checkpoint)
    config = build.evaluation_config(trained, None, overrides)
    build.use_threads(config)
    split, device = build.split(config), build.device(config)
    engine = open_engine(model.to(device), config, dtype=autocast_dtype(config.TEST.PRECISION, device))
    options = diagnosis_options(config, name=split.name)
    diagnosis = diagnose_dataset(model, build.loaders(config, split), options=options, engine=engine)
    return Opened(config, split, engine, diagnosis)


def embed_input(opened: Opened) -> tuple[FeatureSets, VariantFeatures]:
    """The Eigenlayer's input for query and gallery, and for the training images."""
    config, split, engine, _ = opened
    parts = [build.test_loader(config, images) for images in (split.query, split.gallery)]
    features = network_features(engine, *parts, flips=(False,), names=("input",))
    return features, embed(engine, build.test_loader(config, split.train), flips=(False,), title="training set")


def replacements(diagnosed: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Every other weight in place of the Eigenlayer's, without retraining."""
    for name, diagnosis in diagnosed.items():
        table = replacement_table(diagnosis)
        for cells in table.rows:
            yield {"checkpoint": name, **dict(zip(table.header, cells, strict=True))}


def geometry(diagnosed: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """The covariance C of the features on both sides of the Eigenlayer."""
    for name, diagnosis in diagnosed.items():
        for feature, over in diagnosis["features"].items():
            found = over["retrieval"]
            yield {
                "checkpoint": name,
                "feature": feature,
                "S(C)": f"{found['correlation']:.4f}",
                "mean absolute correlation": f"{found['mean_absolute_correlation']:.4f}",
                "effective rank": f"{found['effective_rank']:.1f} of {found['dimensions']}",
            }


def compressed(diagnosed: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Fewer dimensions, by truncating the SVD of the weight and by PCA of its input."""
    kinds = {"truncated_svd": "truncated SVD", "pca": "PCA of the input"}
    shown = {
        (name, kind): {row["rank"]: row["scores"] for row in diagnosis[kind]}
        for name, diagnosis in diagnosed.items()
        for kind in kinds
    }
    for rank in RANKS:
        if all(rank in rows for rows in shown.values()):
            cells = {f"{kinds[kind]}, {name}": _scores(rows[rank][0]) for (name, kind), rows in shown.items()}
            yield {"dimensions": str(rank), **cells}


def expanded(features: FeatureSets) -> Iterator[dict[str, str]]:
    """Plain scores, re-ranking, and expansion of queries and gallery."""
    for distance_power in (2, 1):
        options = EvaluationOptions(rerank=RerankOptions(distance_power=distance_power))
        content = evaluate_features(features, options)
        if distance_power == 2:
            for score in content["scores"]:
                yield {"": "L2-normalized" if score["normalized"] else "raw", **_cells(score)}
        for score in content["reranked"]:
            kind = "L2-normalized" if score["normalized"] else "raw"
            yield {"": f"{kind}, re-ranked, distance_power {distance_power}", **_cells(score)}
    for name, options in EXPANSIONS.items():
        yield {"": name, **_cells(evaluate_features(features, options)["expanded"][0])}


def whitened(
    features: Mapping[str, tuple[FeatureSets, VariantFeatures]], settings: Iterable[tuple[str, int]]
) -> Iterator[dict[str, str]]:
    """Rows of length 1, and the same after each whitening."""
    normalized = {
        name: next(score for score in evaluate_features(sides, EvaluationOptions())["scores"] if score["normalized"])
        for name, (sides, _) in features.items()
    }
    yield {"": "L2-normalized", **{name: _scores(score) for name, score in normalized.items()}}
    for how, dim in settings:
        options = EvaluationOptions(whitening=WhiteningOptions(how, dim))
        found = {
            name: evaluate_features(sides, options, None, training)["whitened"][0]
            for name, (sides, training) in features.items()
        }
        shown = {name: _scores(score) for name, score in found.items()}
        yield {"": next(iter(found.values()))["variant"], **shown}


def _cells(score: Mapping[str, float]) -> dict[str, str]:
    return {heading: percent(score[key]) for heading, key in (("rank-1", "rank1"), ("mAP", "mAP"), ("mINP", "mINP"))}


def _scores(score: Mapping[str, float]) -> str:
    return f"{percent(score['rank1'])} / {percent(score['mAP'])}"


if __name__ == "__main__":
    raise SystemExit(run_command(main))
