"""The synthetic dataset: same seed, same bytes; names and counts of the layout; identities and cameras differ."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid import commands
from reid.data.synthetic import dataset, generate_dataset
from reid.data.synthetic.appearance import PATTERN_SHARES, TOP_SHARES, Appearance, sample_appearance
from reid.data.synthetic.dataset import count_images
from reid.data.synthetic.layout import FOLDERS, PARTS, ImageSpec, plan_images, random_partition
from reid.data.synthetic.rendering import Renderer
from reid.data.synthetic.sheet import contact_sheet
from reid.errors import InputError

NAMES = {
    "market": re.compile(r"(?P<identity>-1|\d{4})_c(?P<camera>[1-6])s[1-6]_\d{6}_\d{2}\.jpg"),
    "duke": re.compile(r"(?P<identity>\d{4})_c(?P<camera>[1-8])_f\d{7}\.jpg"),
}


@pytest.fixture(scope="module", params=["market", "duke"])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The size tiny in both layouts."""
    folder = tmp_path_factory.mktemp("generated")
    return {name: generate_dataset(folder / name, size="tiny", layout=name, progress=False) for name in NAMES}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def labels(folder: Path, layout: str) -> list[tuple[int, int]]:
    matches = [NAMES[layout].fullmatch(path.name) for path in sorted(folder.iterdir())]
    assert all(matches), "a name does not follow the layout"
    return [(int(match["identity"]), int(match["camera"])) for match in matches if match]


def test_generating_twice_gives_the_same_bytes(generated: dict[str, Path], tmp_path: Path) -> None:
    again = generate_dataset(tmp_path / "again", size="tiny", progress=False)
    assert contents(again) == contents(generated["market"])


def test_one_image_alone_is_the_same_bytes(generated: dict[str, Path]) -> None:
    specs = plan_images("tiny", "market", 0)
    for spec in (specs[-1], specs[40], specs[0]):
        path = generated["market"] / FOLDERS["market"] / spec.part / spec.name
        assert Renderer(0).jpeg(spec) == path.read_bytes()


def test_the_order_of_rendering_does_not_matter(generated: dict[str, Path]) -> None:
    renderer = Renderer(0)
    for spec in reversed(plan_images("tiny", "market", 0)[::9]):
        path = generated["market"] / FOLDERS["market"] / spec.part / spec.name
        assert renderer.jpeg(spec) == path.read_bytes()


def test_another_seed_gives_other_identities() -> None:
    spec = ImageSpec(PARTS["train"], "0001_c1s1_000001_01.jpg", 1, 1, 1, "person", 0)
    assert Renderer(0).jpeg(spec) != Renderer(1).jpeg(spec)
    assert Renderer(0).person(1) != Renderer(1).person(1)


def test_no_two_images_are_the_same(generated: dict[str, Path]) -> None:
    images = [data for name, data in contents(generated["market"]).items() if name.endswith(".jpg")]
    assert len(images) == 172 and len(set(images)) == len(images)


def test_names_and_counts_follow_the_layout(generated: dict[str, Path], layout: str) -> None:
    folder = generated[layout]
    metadata = json.loads((folder / "synthetic.json").read_text())
    assert (metadata["size"], metadata["layout"], metadata["seed"]) == ("tiny", layout, 0)
    assert sorted(path.name for path in folder.iterdir()) == sorted([FOLDERS[layout], "synthetic.json"])
    queried = {identity for identity, _ in labels(folder / FOLDERS[layout] / "query", layout)}
    for part, name in PARTS.items():
        found = labels(folder / FOLDERS[layout] / name, layout)
        assert metadata["counts"][part] == {
            "images": len(found),
            "identities": len({identity for identity, _ in found if identity > 0}),
            "cameras": len({camera for _, camera in found}),
            "junk": sum(identity == -1 for identity, _ in found),
            "distractors": sum(identity == 0 for identity, _ in found),
            "lone": sum(identity > 0 and identity not in queried for identity, _ in found) if part == "gallery" else 0,
        }


def test_images_are_jpeg_of_the_size_of_market1501(generated: dict[str, Path], layout: str) -> None:
    for path in sorted(generated[layout].rglob("*.jpg"))[::20]:
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 128))


@pytest.mark.parametrize("size", ["tiny", "demo", "market"])
def test_every_query_has_a_match_in_another_camera(size: str, layout: str) -> None:
    specs = plan_images(size, layout, 3)
    assert len({(spec.part, spec.name) for spec in specs}) == len(specs)
    seen: dict[int, set[int]] = {}
    for spec in specs:
        if spec.part == PARTS["gallery"] and spec.identity > 0:
            seen.setdefault(spec.identity, set()).add(spec.camera)
    queries = [spec for spec in specs if spec.part == PARTS["query"]]
    assert all(seen[query.identity] - {query.camera} for query in queries)
    assert len({(query.identity, query.camera) for query in queries}) == len(queries)
    train = {spec.identity for spec in specs if spec.part == PARTS["train"]}
    assert not train & set(seen)
    single_camera = set(seen) - {query.identity for query in queries}
    assert all(len(seen[identity]) == 1 for identity in single_camera)
    key = Counter((p.part, p.subject, p.camera, p.index) for p in specs)
    assert max(key.values()) == 1, "two images have the same random stream"


def test_plan_of_size_market_has_the_official_counts() -> None:
    counts = count_images(plan_images("market", "market", 0))
    none = {"junk": 0, "distractors": 0, "lone": 0}
    assert counts["train"] == {"images": 12936, "identities": 751, "cameras": 6, **none}
    assert counts["query"] == {"images": 3368, "identities": 750, "cameras": 6, **none}
    gallery = {"images": 19732, "identities": 750, "cameras": 6, "junk": 3819, "distractors": 2798, "lone": 0}
    assert counts["gallery"] == gallery


def test_plan_of_size_market_has_the_official_counts_of_duke() -> None:
    counts = count_images(plan_images("market", "duke", 0))
    quantities = ("images", "identities", "cameras", "junk", "distractors")
    assert [counts["train"][name] for name in quantities] == [16522, 702, 8, 0, 0]
    assert [counts["query"][name] for name in quantities] == [2228, 702, 8, 0, 0]
    assert [counts["gallery"][name] for name in quantities] == [17661, 1110, 8, 0, 0]


def test_the_plan_depends_on_the_seed_alone() -> None:
    assert plan_images("demo", "market", 5) == plan_images("demo", "market", 5)
    assert {p.name for p in plan_images("demo", "market", 5)} != {p.name for p in plan_images("demo", "market", 6)}


def test_random_partition_has_the_sum_and_no_empty_part() -> None:
    for total, parts in ((8, 8), (100, 7), (12936, 2700)):
        shares = random_partition(np.random.default_rng(total), total, parts)
        assert len(shares) == parts and sum(shares) == total and min(shares) >= 1


def test_clothes_are_skewed() -> None:
    people = [sample_appearance(np.random.default_rng(number)) for number in range(600)]
    plain = sum(person.top.pattern == "plain" for person in people) / len(people)
    assert abs(plain - dict(PATTERN_SHARES)["plain"]) < 0.08
    colorless = sum(max(person.top.color) - min(person.top.color) < 60 for person in people) / len(people)
    assert colorless > 0.45, "most people should wear black, white or gray"
    assert sum(share for _, share in TOP_SHARES) == pytest.approx(1.0)


def torso(renderer: Renderer, subject: int, camera: int, index: int) -> np.ndarray:
    """Mean color (3,) of the middle of the chest."""
    spec = ImageSpec(PARTS["train"], "", subject, camera, subject, "person", index)
    image = np.asarray(Image.open(io.BytesIO(renderer.jpeg(spec))), dtype=float)
    return image[34:52, 27:37].mean(axis=(0, 1))


def dressed(renderer: Renderer, color_name: str) -> int:
    """Find an identity in a plain red or blue top, without jacket or bag."""

    def fits(person: Appearance) -> bool:
        red, green, blue = person.top.color
        color = red > green + 90 and red > blue + 90 if color_name == "red" else blue > red + 60 and blue > green + 30
        return color and person.top.pattern == "plain" and person.jacket is None and person.bag == "none"

    return next(number for number in range(1, 2000) if fits(renderer.person(number)))


def test_identity_is_visible_in_the_image() -> None:
    renderer = Renderer(0)
    red, blue = dressed(renderer, "red"), dressed(renderer, "blue")
    images = [(who, camera, index) for who in (red, blue) for camera in (1, 2, 3) for index in range(3)]
    colors = np.array([torso(renderer, *image) for image in images])
    tone = colors[:, 0] - colors[:, 2]  # red against blue
    assert np.median(tone[:9]) > np.median(tone[9:]) + 40
    distances = np.linalg.norm(colors[:9, None] - colors, axis=2)
    nearer = np.median(distances[:, :9], axis=1) < np.median(distances[:, 9:], axis=1)
    assert nearer.mean() >= 0.75


def test_cameras_change_the_image_of_the_same_person() -> None:
    renderer = Renderer(0)

    def mean(camera: int, index: int) -> np.ndarray:
        spec = ImageSpec(PARTS["train"], "", 7, camera, 7, "person", index)
        return np.asarray(Image.open(io.BytesIO(renderer.jpeg(spec))), dtype=float).mean(axis=(0, 1))

    means = np.array([[mean(camera, index) for index in range(4)] for camera in range(1, 7)])
    within = means.std(axis=1).mean()
    between = means.mean(axis=1).std(axis=0).mean()
    assert between > 1.2 * within


def test_strangers_and_clutter_are_not_the_identities() -> None:
    specs = plan_images("demo", "market", 0)
    assert all(spec.subject < 0 for spec in specs if spec.identity == 0)
    kinds = {identity: {p.kind for p in specs if p.identity == identity} for identity in (-1, 0)}
    assert kinds == {-1: {"cut", "clutter"}, 0: {"person", "clutter"}}
    assert Renderer(0).person(1) != Renderer(0).person(-1)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Rendering is interrupted with Ctrl-C at the sixth image."""
    done: list[str] = []

    def jpeg(renderer: Renderer, spec: ImageSpec) -> bytes:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(spec.name)
        return b"image"

    monkeypatch.setattr(Renderer, "jpeg", jpeg)
    yield done


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, interrupted: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        generate_dataset(tmp_path / "set", size="tiny", progress=False)
    assert len(interrupted) == 5
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_leaves_an_empty_folder_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(renderer: Renderer, spec: ImageSpec) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Renderer, "jpeg", full)
    (tmp_path / "set").mkdir()
    with pytest.raises(OSError, match="No space"):
        generate_dataset(tmp_path / "set", size="tiny", progress=False)
    assert [path.name for path in tmp_path.rglob("*")] == ["set"]


def test_the_same_dataset_is_not_generated_again(generated: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "Renderer", None)
    assert generate_dataset(generated["duke"], size="tiny", layout="duke", progress=False) == generated["duke"]


def test_another_dataset_in_the_way_is_refused(generated: dict[str, Path]) -> None:
    before = contents(generated["market"])
    with pytest.raises(InputError, match=r"seed 0 instead of 4"):
        generate_dataset(generated["market"], size="tiny", seed=4, progress=False)
    with pytest.raises(InputError, match=r"size 'tiny' instead of 'demo'"):
        generate_dataset(generated["market"], size="demo", progress=False)
    assert contents(generated["market"]) == before


def test_a_dataset_with_missing_images_is_refused(generated: dict[str, Path]) -> None:
    image = next((generated["market"] / FOLDERS["market"] / "query").iterdir())
    data = image.read_bytes()
    image.unlink()
    try:
        with pytest.raises(InputError, match="query contains 23 images instead of 24"):
            generate_dataset(generated["market"], size="tiny", progress=False)
    finally:
        image.write_bytes(data)


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="something other than a synthetic dataset"):
        generate_dataset(tmp_path, size="tiny", progress=False)
    with pytest.raises(InputError, match="is a file"):
        generate_dataset(tmp_path / "notes.txt", size="tiny", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("wrong", [{"size": "huge"}, {"layout": "cuhk"}, {"seed": -1}])
def test_unknown_size_layout_or_seed_is_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    arguments: dict[str, object] = {"size": "tiny", **wrong}
    with pytest.raises(InputError, match=str(next(iter(wrong.values())))):
        generate_dataset(tmp_path / "set", progress=False, **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_tool_prints_the_counts_and_refuses_in_one_line(
    generated: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> int:
        return commands.run("dataset", ["--size", "tiny", *arguments])

    assert run("--output", str(generated["market"])) == 0
    assert re.search(r"gallery \| +8 \| +84 \| +4 \| +10 \| +10", capsys.readouterr().out)
    assert run("--output", str(generated["market"]), "--seed", "9") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_contact_sheet_is_full(tmp_path: Path) -> None:
    sheet = contact_sheet(0)
    sheet.save(tmp_path / "sheet.png", optimize=True)
    assert (tmp_path / "sheet.png").stat().st_size < 300_000
    pixels = np.asarray(sheet.convert("L"), dtype=float)
    cells = [pixels[top : top + 128, left : left + 64] for top in range(0, 648, 130) for left in range(0, 658, 66)]
    assert len(cells) == 50 and all(cell.std() > 2 for cell in cells)
