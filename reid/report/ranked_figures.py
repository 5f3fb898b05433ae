"""The map of the embedding on the page of ranked lists."""

from __future__ import annotations

from typing import Any

from matplotlib.lines import Line2D

from reid.report.figures import COLORS, LINES, new_figure, style, to_svg
from reid.report.pages import Chart
from reid.report.tables import percent

MARKERS = "osD^vPX*<>ph"
METHODS = {"pca": "PCA", "tsne": "t-SNE"}


def map_chart(side: dict[str, Any], number: int) -> Chart:
    """Draw the map of one checkpoint.

    Args:
        side: Entry of "sides" in `ranked_lists.json`.
        number: Number of the chart on its page.

    Returns:
        SVG of the map, with its text alternative.
    """
    points = side["map"]["points"]
    identities, cameras = sorted({p["identity"] for p in points}), sorted({p["camera"] for p in points})
    with style():
        figure, axes = new_figure((4.6, 4.9))
        handles = []
        for i, identity in enumerate(identities):
            # After eight identities the colors repeat with hollow markers.
            color, hollow = COLORS[LINES[i % len(LINES)]], i // len(LINES) % 2 == 1
            look: dict[str, Any] = {"color": color, "linestyle": "none", "markersize": 4.2, "markeredgewidth": 0.9}
            look["markerfacecolor"] = "none" if hollow else color
            for c, camera in enumerate(cameras):
                shown = [p for p in points if (p["identity"], p["camera"]) == (identity, camera)]
                marker = MARKERS[c % len(MARKERS)]
                axes.plot([p["x"] for p in shown], [p["y"] for p in shown], marker=marker, **look)
            handles.append(Line2D([], [], marker="o", label=str(identity), **look))
        ink: dict[str, Any] = {"color": COLORS["ink"], "linestyle": "none", "markersize": 4.2}
        handles += [
            Line2D([], [], marker=MARKERS[c % len(MARKERS)], label=f"cam {camera}", **ink)
            for c, camera in enumerate(cameras[: len(MARKERS)])
        ]
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
        figure.legend(
            handles=handles, loc="outside lower center", ncols=6, fontsize=8, handletextpad=0.1, columnspacing=1.0
        )
        svg = to_svg(figure, f"map{number}")
    shares = _shares(side["map"]["same_identity"])
    alt = (
        f"{len(points)} images of {len(identities)} identities from {len(cameras)} cameras. {shares} "
        f"Identities: {', '.join(map(str, identities))}."
    )
    return Chart(f"{METHODS[side['map']['method']]}, {side['name']}", svg, alt, shares)


def _shares(same: dict[str, Any]) -> str:
    plane, space = same["map"], same["space"]
    text = (
        f"The nearest other image shows the same identity for {percent(plane['any_camera'])} % of the images on the "
        f"map, for {percent(space['any_camera'])} % in all dimensions, and for {percent(same['chance'])} % by chance."
    )
    if plane["other_camera"] is not None:
        text += (
            f" For the nearest image of another camera: {percent(plane['other_camera'])} % on the map, "
            f"{percent(space['other_camera'])} % in all dimensions."
        )
    return text
