"""The model card of an exported file: YAML front matter under the names that Hugging Face reads, and a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from reid import __version__
from reid.inference.export.files import METADATA, OPSET
from reid.inference.export.interface import IMAGENET_MEAN, IMAGENET_STD
from reid.inference.export.metadata import UNKNOWN, Facts
from reid.inference.export.scores import METRICS, Measured

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
LABELS = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mAP": "mAP", "mINP": "mINP"}
# Of the names that Hugging Face knows; another license is "other", with its name beside.
LICENSES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "unlicense"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "openrail"),
    UNKNOWN,
)
DRAWN = "synthetic"


def front_matter(name: str, facts: Facts, measured: Measured | None, *, format: str) -> dict[str, Any]:
    """What the card begins with. Scores are listed where they were measured in the very form of this export."""
    known = facts.license.lower() in LICENSES
    told: dict[str, Any] = {"license": facts.license.lower() if known else "other"}
    if not known:
        told["license_name"] = facts.license
    told |= {
        "library_name": {"onnx": "onnx", "torch": "pytorch"}[format],
        "pipeline_tag": "image-feature-extraction",
        "tags": ["person-re-identification", "image-retrieval", facts.backbone, *(() if facts.origin else ("svdnet",))],
    }
    if facts.trained_on:
        told["datasets"] = list(facts.trained_on)
    score = measured.of(facts.form) if measured else None
    if measured and score:
        found = [metric for metric in METRICS if metric in score]
        told["metrics"] = [LABELS[metric] for metric in found]
        told["model-index"] = [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "image-feature-extraction", "name": "Person re-identification"},
                        "dataset": {"type": measured.dataset, "name": measured.dataset, "split": "test"},
                        "metrics": [
                            {"type": LABELS[metric], "name": LABELS[metric], "value": round(float(score[metric]), 6)}
                            for metric in found
                        ],
                    }
                ],
            }
        ]
    return told


def render_card(path: Path, facts: Facts, measured: Measured | None, *, format: str, checked: str) -> str:
    """The card of the file at `path`. checked: a sentence on how the file was compared with PyTorch."""
    front = yaml.safe_dump(
        front_matter(path.stem, facts, measured, format=format), sort_keys=False, allow_unicode=True, width=120
    )
    return (
        _environment()
        .get_template("model_card.md")
        .render(
            front=front,
            file=path.name,
            facts=facts,
            form=facts.form,
            measured=measured,
            mine=measured.of(facts.form) if measured else None,
            labels={metric: LABELS[metric] for metric in METRICS},
            format=format,
            checked=checked,
            version=__version__,
            opset=OPSET,
            metadata_file=METADATA,
            imagenet={"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)},
            drawn=set(facts.trained_on) == {DRAWN},
        )
    )


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # Markdown, not HTML: what users say is one line, and shown as text
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": lambda fraction: f"{100 * fraction:.1f}", "plain": _plain}
    return environment


def _plain(text: str) -> str:
    """One line that Markdown shows as it is."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>()#+-!|~&" else letter for letter in text)
