"""Overlays of attention and clusters on an image."""

from __future__ import annotations

import numpy as np
import pytest

from reid.errors import InputError
from reid.report.attention import cluster_color, draw_assignments, draw_attention

IMAGE = np.full((16, 8, 3), 100, dtype=np.uint8)


def test_the_largest_weight_is_red_and_the_rest_stays_gray() -> None:
    weights = np.zeros((4, 2))
    weights[3, 1] = 0.2
    drawn = np.asarray(draw_attention(IMAGE, weights, strength=0.5)).astype(int)
    assert drawn.shape == IMAGE.shape
    np.testing.assert_allclose(drawn[15, 7], [165, 65, 65], atol=1)  # Half gray 100, half red (230, 30, 30).
    assert (drawn[:8] == 100).all()
    red = drawn[..., 0] - drawn[..., 1]
    assert np.unravel_index(red.argmax(), red.shape)[0] >= 12 and (np.diff(red[:, 7]) >= 0).all()


def test_the_scale_of_the_weights_does_not_matter() -> None:
    weights = np.random.default_rng(0).random((4, 2))
    assert np.array_equal(draw_attention(IMAGE, weights), draw_attention(IMAGE, 7 * weights))
    assert (np.asarray(draw_attention(IMAGE, np.zeros((4, 2)))) == 100).all()


def test_each_position_has_the_color_of_its_cluster() -> None:
    assignments = np.zeros((3, 4, 2))
    assignments[0] = 1
    assignments[:, 0, 0] = (0, 1, 0)
    assignments[:, 3, 1] = (0, 0, 1)
    drawn = np.asarray(draw_assignments(IMAGE, assignments, strength=1.0))
    for position, cluster in (((0, 0), 1), ((3, 3), 1), ((4, 4), 0), ((15, 7), 2)):
        assert tuple(drawn[position]) == cluster_color(cluster), position
    ghosted = np.asarray(draw_assignments(IMAGE, assignments, strength=1.0, ghosts=1))
    assert (ghosted[12:, 4:] == 100).all() and tuple(ghosted[0, 0]) == cluster_color(1)


def test_a_weak_assignment_is_faint() -> None:
    certain, uncertain = np.zeros((2, 1, 1)), np.full((2, 1, 1), 0.5)
    certain[0] = 1
    strong = np.asarray(draw_assignments(IMAGE, certain)).astype(int) - 100
    faint = np.asarray(draw_assignments(IMAGE, uncertain)).astype(int) - 100
    np.testing.assert_allclose(faint, strong / 2, atol=1)


def test_the_clusters_of_a_netvlad_have_distinct_colors() -> None:
    assert len({cluster_color(k) for k in range(64)}) == 64


@pytest.mark.parametrize(
    ("image", "weights", "message"),
    [
        (IMAGE.astype(float), np.ones((2, 2)), r"uint8, not .* float64"),
        (IMAGE[..., 0], np.ones((2, 2)), r"\(H, W, 3\)"),
        (IMAGE, -np.ones((2, 2)), "finite and non-negative"),
        (IMAGE, np.ones((1, 2, 2)), "in 2 dimensions"),
        (IMAGE, np.full((2, 2), np.nan), "finite and non-negative"),
    ],
)
def test_invalid_input(image: np.ndarray, weights: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_attention(image, weights)
    with pytest.raises(InputError, match=r"strength must be in \[0, 1\]"):
        draw_attention(IMAGE, np.ones((2, 2)), strength=1.5)
