"""The pictures of the page of ranked lists: thumbnails, each kept once, and the map of the embedding."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D
from PIL import Image
from tqdm import tqdm

from reid.report.figures import COLORS, LINES, new_figure, style, to_svg
from reid.report.pages import Chart, Picture, picture

MAX_SIDE = 112  # pixels: about twice what the page shows, for dense screens
MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")  # as in reid.data.images.cache
MARKERS = "osD^vPX*<>ph"
METHODS = {"pca": "PCA", "tsne": "t-SNE"}


def thumbnails(paths: Iterable[str]) -> dict[str, Picture | None]:
    """A small JPEG of each image file, each path once; None for one that is missing, broken or too large to decode."""
    distinct = sorted(set(paths))
    return {path: _thumbnail(path) for path in tqdm(distinct, desc="thumbnails", unit="img", leave=False)}


def _thumbnail(path: str) -> Picture | None:
    try:
        if not Path(path).is_file():
            return None
        with Image.open(path, formats=FORMATS) as image:
            columns, rows = image.size
            if columns * rows > MAX_PIXELS:
                return None
            image.draft("RGB", (MAX_SIDE, MAX_SIDE))  # a large JPEG is decoded at a fraction of its size
            return picture(image.convert("RGB"), alt="", max_side=MAX_SIDE)
    # Pillow tells broken files by whatever its decoders meet; one of them must not take the page away.
    except Exception:
        return None


def map_chart(side: dict[str, Any], number: int) -> Chart:
    """The map of one checkpoint, an entry of "sides" of `ranked_lists.json`; number: of the chart on its page."""
    mapped, name = side["map"], METHODS[side["map"]["method"]]
    points = mapped["points"]
    identities, cameras = sorted({p["identity"] for p in points}), sorted({p["camera"] for p in points})
    with style():
        figure, axes = new_figure((4.6, 4.9))
        handles = []
        for i, identity in enumerate(identities):
            # Beyond eight people the colors come again, hollow.
            color, hollow = COLORS[LINES[i % len(LINES)]], i // len(LINES) % 2 == 1
            look: dict[str, Any] = {"color": color, "linestyle": "none", "markersize": 4.2, "markeredgewidth": 0.9}
            look["markerfacecolor"] = "none" if hollow else color
            for c, camera in enumerate(cameras):
                here = [p for p in points if (p["identity"], p["camera"]) == (identity, camera)]
                marker = MARKERS[c % len(MARKERS)]
                axes.plot([p["x"] for p in here], [p["y"] for p in here], marker=marker, **look)
            handles.append(Line2D([], [], marker="o", label=str(identity), **look))
        ink: dict[str, Any] = {"color": COLORS["ink"], "linestyle": "none", "markersize": 4.2}
        shapes = [
            Line2D([], [], marker=MARKERS[c % len(MARKERS)], label=f"cam {camera}", **ink)
            for c, camera in enumerate(cameras[: len(MARKERS)])
        ]
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
        figure.legend(
            handles=[*handles, *shapes], loc="outside lower center", ncols=6, fontsize=8, handletextpad=0.1,
            columnspacing=1.0,
        )  # fmt: skip
        svg = to_svg(figure, f"map{number}")
    return Chart(
        title=f"{name}, {side['name']}",
        svg=svg,
        alt=(
            f"{len(points)} images of {len(identities)} people seen by {len(cameras)} cameras. {_shares(mapped)} "
            f"People: identities {', '.join(map(str, identities))}."
        ),
        caption=_shares(mapped),
    )


def _shares(mapped: dict[str, Any]) -> str:
    same = mapped["same_identity"]
    plane, space = same["map"], same["space"]
    text = (
        f"The nearest other image shows the same person for {_percent(plane['any_camera'])} of the images on the map, "
        f"for {_percent(space['any_camera'])} in all dimensions, and would by chance for {_percent(same['chance'])}."
    )
    if plane["other_camera"] is not None:
        text += (
            f" Nearest by another camera: {_percent(plane['other_camera'])} on the map, "
            f"{_percent(space['other_camera'])} in all dimensions."
        )
    return text


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
