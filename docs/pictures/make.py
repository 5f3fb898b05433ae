"""Draw the pictures of the README from a finished run on synthetic pedestrians: `make pictures`.

The run is that of `make demo`. No picture is made from images of real people.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from reid.config import build
from reid.diagnostics.ranked_lists import ranked_lists
from reid.errors import InputError
from reid.evaluation.retrieval import network_features
from reid.inference.conversion import load_network
from reid.io.checkpoint import load_checkpoint
from reid.records import Features
from reid.report import training_figures
from reid.report.diagnosis_figures import colored
from reid.report.figures import NARROW
from reid.report.history import read_history

HERE = Path(__file__).parent
LIGHT = {
    "paper": "#ffffff", "ink": "#1f2328", "quiet": "#59636e", "grid": "#d9dee3", "rri": "#0b5cc4",
    "control": "#bc4c00", "step0": "#6e7781", "restraint": "#1a7f37", "relaxation": "#8250df",
}  # fmt: skip
GOOD, BAD = "#1a7f37", "#cf222e"
ROWS, TOP, MARGIN = 4, 9, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="OUTPUT_DIR of the finished run")
    run = parser.parse_args().run
    if read_history(run).config.get("DATASETS", {}).get("NAME") != "synthetic":
        raise InputError(f"{run}: not a run on synthetic pedestrians; pictures of real people are not published")
    for name, svg in charts(run).items():
        (HERE / f"{name}.svg").write_text(svg, encoding="utf-8")
    ranked(run / "checkpoints" / "rri_last.pth").save(HERE / "ranked.jpg", quality=85, optimize=True)
    weights(run).save(HERE / "weights.png", optimize=True)
    for path in sorted(HERE.iterdir()):
        print(f"{path.stat().st_size / 1024:6.1f} KB  {path.name}")


def charts(run: Path) -> dict[str, str]:
    """S(W) and mAP over the epochs, in the colors of a light page."""
    history = read_history(run)
    correlation = {name: history.curve(name, "correlation") for name in ("rri", "control")}
    scores = {run: [(x, 100 * y) for x, y in history.score_curve(run, "mAP")] for run in ("rri", "control")}
    return {
        "correlation": standalone(training_figures.correlation_chart(correlation, history.bands(), size=NARROW)),
        "mAP": standalone(training_figures.score_chart(scores, history.bands(), "mAP")),
    }


def standalone(svg: str) -> str:
    """A chart as a file of its own, on white."""
    for name, color in LIGHT.items():
        svg = svg.replace(f"var(--{name})", color)
    missing = re.findall(r"var\(--\w+\)", svg)
    if missing:
        raise ValueError(f"no color for {missing[0]}")
    head, rest = svg.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg" style="background:#ffffff">{rest}\n'


def ranked(checkpoint: Path) -> Image.Image:
    """Queries and their nearest gallery images: right ones framed in green, wrong ones in red."""
    model, config = load_network(checkpoint)
    split = build.split(config)
    loaders = (build.test_loader(config, split.query), build.test_loader(config, split.gallery))
    pair = network_features(model.to(build.device(config)), *loaders, flips=(False,))[config.TEST.FEATURE, False]
    query, gallery = pair
    lists = ranked_lists(query, gallery, top=TOP)
    # Neither the best queries nor the worst: those at even steps of average precision.
    valid = np.flatnonzero(lists.ranking.valid)
    order = valid[np.argsort(lists.ranking.average_precision[valid], kind="stable")]
    chosen = order[(np.linspace(0.35, 0.95, ROWS) * (len(order) - 1)).astype(int)]
    return mosaic(query, gallery, lists.gallery[chosen], lists.correct[chosen], chosen)


def mosaic(
    query: Features, gallery: Features, rows: np.ndarray, correct: np.ndarray, chosen: np.ndarray
) -> Image.Image:
    height, width = 128, 64
    step_x, step_y = width + 2 * MARGIN, height + 2 * MARGIN
    sheet = Image.new("RGB", ((TOP + 1) * step_x + 2 * MARGIN, len(chosen) * step_y), "white")
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(chosen):
        sheet.paste(_picture(query.paths[row], width, height), (MARGIN, i * step_y + MARGIN))
        for j, found in enumerate(rows[i]):
            x, y = (j + 1) * step_x + 3 * MARGIN, i * step_y + MARGIN
            draw.rectangle((x - 4, y - 4, x + width + 3, y + height + 3), fill=GOOD if correct[i, j] else BAD)
            sheet.paste(_picture(gallery.paths[found], width, height), (x, y))
    return sheet


def _picture(path: str, width: int, height: int) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB").resize((width, height))


def weights(run: Path) -> Image.Image:
    """|cos| of every pair of weight vectors after Step 0 and after the last Restraint, side by side."""
    sides = []
    for name in ("rri_step0", "rri_last"):
        weight = load_checkpoint(run / "checkpoints" / f"{name}.pth")["model"]["eigenlayer.weight"]
        unit = torch.nn.functional.normalize(weight.double(), dim=1)[:160]
        sides.append((unit @ unit.T).abs().clamp(max=1).mul(255).round().byte().numpy())
    tile = [colored(side).convert("RGB").resize((320, 320), Image.Resampling.NEAREST) for side in sides]
    sheet = Image.new("RGB", (660, 320), "white")
    sheet.paste(tile[0], (0, 0))
    sheet.paste(tile[1], (340, 0))
    return sheet.quantize(64)


if __name__ == "__main__":
    main()
