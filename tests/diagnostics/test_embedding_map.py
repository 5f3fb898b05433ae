"""The embedding map: choice of identities, positions and neighbor statistics."""

from __future__ import annotations

import json

import numpy as np
import pytest

from reid.diagnostics.embedding_map import EmbeddingMap, check_method, embedding_map
from reid.errors import InputError
from reid.records import Features


def random_features(seed: int = 0, width: int = 60) -> tuple[Features, Features]:
    """12 people as noisy clusters, 3 cameras; junk and distractors in the gallery; person 12 in the gallery alone."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(14, width)) * 2

    def part(count: int, people: list[int]) -> Features:
        identities = random.choice(people, count)
        values = centres[identities + 1] + random.normal(size=(count, width)) * 1.5
        return Features(values.astype(np.float32), identities, random.integers(1, 4, count))

    return part(40, list(range(1, 12))), part(120, list(range(-1, 13)))


def naive_shares(points: np.ndarray, found: EmbeddingMap) -> tuple[float, float]:
    any_camera, other_camera = [], []
    for i, point in enumerate(points):
        nearest = sorted((float(np.linalg.norm(point - other)), j) for j, other in enumerate(points) if j != i)
        any_camera.append(found.identities[nearest[0][1]] == found.identities[i])
        others = [j for _, j in nearest if found.cameras[j] != found.cameras[i]]
        if any(found.identities[j] == found.identities[i] for j in others):
            other_camera.append(found.identities[others[0]] == found.identities[i])
    return float(np.mean(any_camera)), float(np.mean(other_camera))


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_neighbors_are_counted_a_second_way(method: str) -> None:
    query, gallery = random_features()
    found = embedding_map(query, gallery, method=method, identities=8, images=6)
    assert found is not None and found.positions.shape == (len(found.identities), 2)
    any_camera, other_camera = naive_shares(found.positions, found)
    assert (found.in_map.any_camera, found.in_map.other_camera) == (
        pytest.approx(any_camera),
        pytest.approx(other_camera),
    )
    people = np.unique(found.identities)
    assert len(people) == 8 and people.min() >= 1 and 12 not in people
    assert (np.unique(found.identities, return_counts=True)[1] <= 6).all()
    pairs = [a == b for i, a in enumerate(found.identities) for j, b in enumerate(found.identities) if i != j]
    assert found.chance == pytest.approx(np.mean(pairs))
    assert found.from_query.any() and not found.from_query.all()


def test_the_full_space_and_the_plane_of_greatest_variance() -> None:
    query, gallery = random_features(1)
    # Everybody is drawn, so the points are known.
    found = embedding_map(query, gallery, identities=50, images=40)
    assert found is not None
    labels = np.concatenate([query.identities, gallery.identities])
    chosen = (labels > 0) & np.isin(labels, query.identities) & (np.bincount(labels + 1)[labels + 1] > 1)
    values = np.concatenate([query.values, gallery.values])[chosen].astype(float)
    assert np.array_equal(found.identities, labels[chosen])
    assert np.array_equal(found.cameras, np.concatenate([query.cameras, gallery.cameras])[chosen])
    assert found.from_query.sum() == chosen[: len(query.values)].sum()
    any_camera, other_camera = naive_shares(values, found)
    assert found.in_space.any_camera == pytest.approx(any_camera)
    assert found.in_space.other_camera == pytest.approx(other_camera)
    u, s, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(found.positions), np.abs(u[:, :2] * s[:2]), atol=1e-8)


def test_the_choice_hangs_on_labels_and_seed_alone() -> None:
    query, gallery = random_features()
    other = (Features(f.values[:, ::-1] + 1, f.identities, f.cameras) for f in (query, gallery))
    one, same = embedding_map(query, gallery, identities=4), embedding_map(*other, identities=4)
    again, elsewhere = embedding_map(query, gallery, identities=4), embedding_map(query, gallery, identities=4, seed=1)
    assert one and same and again and elsewhere
    assert np.array_equal(one.identities, same.identities) and np.array_equal(one.positions, again.positions)
    assert set(one.identities) != set(elsewhere.identities)
    t_sne = [embedding_map(query, gallery, method="tsne", identities=4) for _ in range(2)]
    assert t_sne[0] and t_sne[1] and np.array_equal(t_sne[0].positions, t_sne[1].positions)


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize("width", [1, 2])
def test_few_dimensions_and_equal_rows(method: str, width: int) -> None:
    query, gallery = random_features(width=width)
    found = embedding_map(query, gallery, method=method, identities=3, images=4)
    assert found and found.positions.shape[1] == 2 and np.isfinite(found.positions).all()
    flat = [Features(np.ones_like(f.values), f.identities, f.cameras) for f in (query, gallery)]
    found = embedding_map(*flat, method=method, identities=3)
    assert found and not found.positions.any()
    json.dumps(found.to_json(), allow_nan=False)


def test_too_few_images_make_no_map() -> None:
    one = Features(np.ones((2, 3), np.float32), np.array([1, 2]), np.array([1, 1]))
    assert embedding_map(one, one) is None


def test_plain_values() -> None:
    found = embedding_map(*random_features(), identities=4)
    assert found
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [p["identity"] for p in plain["points"]] == found.identities.tolist()
    np.testing.assert_allclose([p["x"] for p in plain["points"]], found.positions[:, 0], rtol=1e-4)
    assert plain["same_identity"]["map"]["any_camera"] == found.in_map.any_camera
    assert plain["same_identity"]["chance"] == found.chance


def test_invalid_options_are_reported() -> None:
    with pytest.raises(InputError, match="did you mean tsne"):
        check_method("t-sne")
    with pytest.raises(InputError, match="1 to 2000 points"):
        embedding_map(*random_features(), identities=100, images=100)
