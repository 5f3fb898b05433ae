"""A page of attention or cluster maps beside their images, with the scale of each map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reid.report import pages
from reid.report.attention import STRENGTH, cluster_color, draw_attention

MAX_SIDE = 256  # Pixels, of an image on the page.
MAX_BYTES = 20_000_000  # Of all images on the page.


@dataclass(frozen=True)
class Attended:
    """An image and the maps drawn over it.

    Attributes:
        file: Path of the image file.
        image: (H, W, 3) uint8, as the network sees it.
        weights: (h, w) weights of attention or (K, h, w) assignments to clusters, by the name of the map.
        drawings: The overlay of each map.
    """

    file: Path
    image: np.ndarray
    weights: Mapping[str, np.ndarray]
    drawings: Mapping[str, Image.Image]


def write_page(path: Path, rows: list[Attended], *, title: str, ghosts: int = 0) -> Path:
    """Write the page. Images beyond a total size are left out and counted.

    Args:
        path: File to write.
        rows: The images in the order of the page.
        title: What was visualized, such as the pooling and the checkpoint.
        ghosts: Number of ghost clusters at the end of assignments, which are not drawn.

    Returns:
        `path`.

    Raises:
        InputError: If Jinja is not installed.
    """
    shown, size = [], 0
    for row in rows:
        entry = _entry(row, ghosts)
        size += sum(len(picture.src) for picture in [entry["image"], *(m["picture"] for m in entry["maps"])])
        if size > MAX_BYTES:
            break
        shown.append(entry)
    page = pages.render_page(
        "attention.html",
        title=title,
        rows=shown,
        omitted=len(rows) - len(shown),
        scale=pages.picture(_color_scale(), alt="", max_side=MAX_SIDE, kind="PNG"),
        ghosts=ghosts,
        opacity=STRENGTH,
    )
    return pages.write_page(path, page)


def _entry(row: Attended, ghosts: int) -> dict[str, Any]:
    maps = []
    for name, weights in row.weights.items():
        clusters = _clusters(weights, ghosts) if weights.ndim == 3 else []
        largest = float(weights.max())
        if clusters:
            found = ", ".join(f"{100 * cluster['share']:.0f} % cluster {cluster['number']}" for cluster in clusters[:5])
            alt = f"{name} of {row.file.name}: {found}"
        else:
            y, x = np.unravel_index(weights.argmax(), weights.shape)
            down, right = (y + 0.5) / weights.shape[0], (x + 0.5) / weights.shape[1]
            where = f"at {down:.0%} of the height and {right:.0%} of the width"
            alt = f"{name} of {row.file.name}: largest weight {largest:.3g}, {where}"
        maps.append(
            {
                "name": name,
                "picture": pages.picture(row.drawings[name], alt=alt, max_side=MAX_SIDE),
                "ticks": [f"{largest * part:.2g}" for part in (1, 0.75, 0.5, 0.25, 0)],
                "clusters": clusters,
            }
        )
    image = pages.picture(Image.fromarray(row.image), alt=f"image {row.file.name}", max_side=MAX_SIDE)
    return {"file": row.file, "image": image, "maps": maps}


def _clusters(assignments: np.ndarray, ghosts: int) -> list[dict[str, Any]]:
    """Return the clusters that are strongest somewhere, by the share of positions, with their colors."""
    counts = np.bincount(assignments.argmax(0).ravel(), minlength=len(assignments))
    return [
        {
            "number": int(k) + 1,
            "share": counts[k] / counts.sum(),
            "color": "#{:02x}{:02x}{:02x}".format(*cluster_color(int(k))),
            "ghost": k >= len(assignments) - ghosts,
        }
        for k in np.argsort(-counts, kind="stable")
        if counts[k]
    ]


def _color_scale() -> Image.Image:
    """Draw the weights from the largest, at the top, to 0 over a medium gray."""
    height, width = 120, 12
    weights = np.repeat(np.linspace(1, 0, height)[:, None], width, axis=1)
    return draw_attention(np.full((height, width, 3), 128, dtype=np.uint8), weights)
