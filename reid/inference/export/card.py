"""The model card of an exported file: YAML front matter with the keys of the Hugging Face Hub, and a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from reid import __version__
from reid.inference.export.formats import METADATA_FILE, OPSET
from reid.inference.export.metadata import UNKNOWN, ModelMetadata
from reid.inference.export.scores import METRICS, MeasuredScores
from reid.records import IMAGENET_MEAN, IMAGENET_STD
from reid.report.pages import template_environment
from reid.report.tables import difference_text, variant_name

TEMPLATES = Path(__file__).parent / "templates"
LABELS = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mAP": "mAP", "mINP": "mINP"}
# Identifiers of the Hugging Face Hub; any other license is written as "other" with its name in license_name.
LICENSES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "unlicense"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "openrail"),
    UNKNOWN,
)
SYNTHETIC = "synthetic"


def render_card(
    path: Path, metadata: ModelMetadata, measured: MeasuredScores | None, *, format: str, verification: str
) -> str:
    """Render the model card of an exported file.

    Args:
        path: Path of the exported file, named on the card.
        metadata: Description of the network.
        measured: Its scores, if known.
        format: "onnx" or "torch".
        verification: A sentence on how the file was compared with PyTorch.

    Returns:
        Markdown with front matter.
    """
    front = yaml.safe_dump(
        _front_matter(path.stem, metadata, measured, format=format), sort_keys=False, allow_unicode=True, width=120
    )
    # Markdown, not HTML: values from users are one line each, which `_plain` escapes.
    environment = template_environment(TEMPLATES, autoescape=False, keep_trailing_newline=True)
    environment.filters["plain"] = _plain
    return environment.get_template("model_card.md").render(
        front=front,
        file=path.name,
        metadata=metadata,
        interface=metadata.interface,
        measured=measured,
        own_score=measured.for_interface(metadata.interface) if measured else None,
        gain=_gain(measured.gain) if measured and measured.gain else "",
        labels={metric: LABELS[metric] for metric in METRICS},
        format=format,
        verification=verification,
        version=__version__,
        opset=OPSET,
        metadata_file=METADATA_FILE,
        imagenet={"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)},
        synthetic=set(metadata.trained_on) == {SYNTHETIC},
    )


def _front_matter(
    name: str, metadata: ModelMetadata, measured: MeasuredScores | None, *, format: str
) -> dict[str, Any]:
    """Build the front matter; scores are included only if they were measured with the outputs of this file."""
    known = metadata.license.lower() in LICENSES
    front: dict[str, Any] = {"license": metadata.license.lower() if known else "other"}
    if not known:
        front["license_name"] = metadata.license
    tags = ["person-re-identification", "image-retrieval", metadata.backbone]
    front |= {
        "library_name": {"onnx": "onnx", "torch": "pytorch"}[format],
        "pipeline_tag": "image-feature-extraction",
        "tags": [*tags, *(() if metadata.origin else ("svdnet",))],
    }
    if metadata.trained_on:
        front["datasets"] = list(metadata.trained_on)
    score = measured.for_interface(metadata.interface) if measured else None
    if measured and score:
        metrics = [metric for metric in METRICS if metric in score]
        front["metrics"] = [LABELS[metric] for metric in metrics]
        front["model-index"] = [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "image-feature-extraction", "name": "Person re-identification"},
                        "dataset": {"type": measured.dataset, "name": measured.dataset, "split": "test"},
                        "metrics": [
                            {"type": LABELS[metric], "name": LABELS[metric], "value": round(float(score[metric]), 6)}
                            for metric in metrics
                        ],
                    }
                ],
            }
        ]
    return front


def _gain(measured: dict[str, Any]) -> str:
    """A sentence on what the decorrelation gained."""
    final, control, intervals = (measured[key] for key in ("final", "control_final", "difference"))
    gains = [f"{LABELS[key]} {difference_text(final, control, key, intervals)}" for key in ("rank1", "mAP")]
    brackets = "; in brackets 95 % intervals, by paired bootstrap over the persons" if intervals else ""
    return (
        f"Over a control that was trained for the same epochs without decorrelation, one seed, {variant_name(final)}: "
        f"{', '.join(gains)}{brackets}."
    )


def _plain(text: str) -> str:
    """One line that Markdown shows as it is."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>()#+-!|~&" else letter for letter in text)
