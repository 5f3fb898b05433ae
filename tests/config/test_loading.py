"""Loading of configurations: files, bases, overrides, earlier versions, and the errors that are reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from reid.config.loading import defaults, find_config, load_config, parse_config
from reid.errors import InputError

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS, PARTS = sorted(FOLDER.glob("*.yaml")), sorted(FOLDER.glob("parts/*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_states_command_cost_and_score(path: Path) -> None:
    config = load_config(path)
    assert config.is_frozen()
    head = path.read_text(encoding="utf-8").split("OUTPUT_DIR")[0]
    assert head.startswith(f"# python tools/train_svdnet.py --config-file configs/{path.name}")
    assert "# Cost: " in head
    assert "# Expect: " in head
    assert "@" not in head
    assert config.OUTPUT_DIR.startswith("runs/")


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_every_part_has_a_base_and_its_own_run_folder(path: Path) -> None:
    config = load_config(path)
    folder = f"runs/parts/{path.stem}"
    assert folder == config.OUTPUT_DIR
    fraction = 0.125 if path.stem.startswith("backbone_") else 0.5
    assert ("market1501", fraction, 8) == (config.DATASETS.NAME, config.DATASETS.IDENTITIES, config.STEP0.EPOCHS)
    sizes = {"resnet18": [64, 32], "deepface": [152, 152], "caffenet": [227, 227]}
    assert sizes.get(config.MODEL.BACKBONE, [128, 64]) == config.INPUT.SIZE


def test_no_two_parts_are_the_same_run() -> None:
    runs = {path.stem: load_config(path, ["OUTPUT_DIR", "runs"]).dump() for path in PARTS}
    assert len(set(runs.values())) == len(runs)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("backbones/*.yaml")), ids=lambda path: path.stem)
def test_every_backbone_has_its_command_and_run_folder(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith(f"# svdnet sweep --config-file configs/backbones/{path.name} ")
    config = load_config(path)
    assert config.MODEL.BACKBONE.startswith("timm:") and f"runs/backbones/{path.stem}" == config.OUTPUT_DIR
    assert config.RRI.CONTROL and config.RRI.MAX_ROUNDS == 2


def test_a_file_with_a_base_holds_only_the_differences(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("SEED: 5\nSOLVER: {BATCH_SIZE: 16, MOMENTUM: 0.8}\n")
    (tmp_path / "middle.yaml").write_text("BASE: base.yaml\nSOLVER: {BATCH_SIZE: 8}\n")
    (tmp_path / "leaf.yaml").write_text("BASE: middle.yaml\nSOLVER: {MOMENTUM: 0.7}\n")
    config = load_config(tmp_path / "leaf.yaml", ["SOLVER.WEIGHT_DECAY", "0.1"])
    assert (config.SEED, config.SOLVER.BATCH_SIZE, config.SOLVER.MOMENTUM) == (5, 8, 0.7)
    assert config.SOLVER.WEIGHT_DECAY == 0.1
    assert "BASE" not in config.dump()


def test_a_missing_wrong_or_circular_base_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("BASE: b.yaml\n")
    with pytest.raises(InputError, match=r"b\.yaml: no such configuration"):
        load_config(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("BASE: a.yaml\n")
    with pytest.raises(InputError, match="circular BASE reference"):
        load_config(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("SEEED: 1\n")
    with pytest.raises(InputError, match=r"b\.yaml, the BASE of .*a.yaml: unknown key SEEED"):
        load_config(tmp_path / "a.yaml")


def test_overrides_take_precedence_and_are_converted() -> None:
    text = "SOLVER: {BATCH_SIZE: 16}\nSTEP0: {LR: 1e-3}"
    config = parse_config(text, ["SOLVER.BATCH_SIZE", "8", "RRI.CONTROL", "True", "MODEL.WEIGHTS", "none"])
    assert config.SOLVER.BATCH_SIZE == 8
    assert config.STEP0.LR == [1e-3]
    assert config.RRI.CONTROL is True
    assert config.RRI.MAX_ROUNDS == defaults().RRI.MAX_ROUNDS


def test_strings_are_not_converted() -> None:
    config = parse_config("", ["OUTPUT_DIR", "1e5", "RESTRAINT.FREEZE", "['norm', 'backbone.conv1']"])
    assert config.OUTPUT_DIR == "1e5"
    assert config.RESTRAINT.FREEZE == ["norm", "backbone.conv1"]
    assert parse_config("", ["RESTRAINT.FREEZE", "norm"]).RESTRAINT.FREEZE == ["norm"]


@pytest.mark.parametrize("text", ["MODEL: {POOLING: max}", "MODEL: {POOLING: {NAME: max}}"])
def test_the_pooling_key_of_an_earlier_version_is_read(text: str) -> None:
    """Checkpoints hold their configuration as text, in earlier versions with `POOLING: max`."""
    expected = defaults()
    expected.MODEL.POOLING.NAME = "max"
    assert parse_config(text).MODEL.POOLING == expected.MODEL.POOLING
    assert parse_config("", ["MODEL.POOLING", "max"]).MODEL.POOLING.NAME == "max"
    with pytest.raises(InputError, match=r"MODEL\.POOLING\.NAME 'gen' must be one of .*did you mean gem"):
        parse_config("MODEL: {POOLING: gen}")


def test_the_official_recipe_requires_weights() -> None:
    official = next(path for path in CONFIGS if path.stem == "market1501_svdnet_resnet50_official")
    with pytest.raises(InputError, match="BatchNorm statistics of a pretrained network"):
        load_config(official, ["MODEL.WEIGHTS", "none"])


def test_a_dumped_config_can_be_read_back() -> None:
    config = load_config(CONFIGS[0])
    assert parse_config(config.dump()) == config


def test_all_errors_are_reported_together_with_near_names() -> None:
    text = "MODEL: {BACKBON: x, BACKBONE: resnet5}\nSOLVER: {BATCH_SIZE: many}\nRRI: 3"
    with pytest.raises(InputError) as caught:
        parse_config(text, ["STEP0.EPOCHS", "0", "epochs", "3"])
    message = str(caught.value)
    for part in (
        "unknown key MODEL.BACKBON (did you mean MODEL.BACKBONE",
        "MODEL.BACKBONE 'resnet5' must be one of",
        "did you mean resnet50",
        "SOLVER.BATCH_SIZE must be an integer, not 'many'",
        "RRI is a section",
        "STEP0.EPOCHS 0 must be 1 or more",
        "unknown key epochs",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["SOLVER.NORM_STATISTICS", "frozen", "MODEL.WEIGHTS", "none"], "pretrained network"),
        (["SOLVER.BATCH_SIZE"], "has no value"),
        (["INPUT.SIZE", "[256]"], "height and width"),
        (["INPUT.SIZE", "[256, 'a']"], "must be an integer"),
        (["INPUT.STD", "[0.1, 0.1, 0]"], "STD above 0"),
        (["STEP0.MILESTONES", "[0.8, 0.4]"], "increasing fractions"),
        (["STEP0.LR", "[1e-3, 1e-4]"], "one learning rate"),
        (["RELAXATION.LR", "[]"], "positive learning rates"),
        (["MODEL.BACKBONE", "osnet_x1_0", "MODEL.LAST_STRIDE", "1"], "only for ResNets"),
        (["MODEL.BACKBONE", "caffenet"], r"INPUT.SIZE \[256, 128\] must be \[227, 227\] for caffenet"),
        (
            ["MODEL.POOLING.NAME", "flatten"],
            "flatten: requires feature maps of a fixed size .*deepface.*, not those of resnet50",
        ),
        (["MODEL.BACKBONE", "osnet_x0_25", "MODEL.NORM.NAME", "ibn_a"], "ibn_a: only for ResNets, not for osnet_x0_25"),
        (
            ["MODEL.BACKBONE", "deepface", "MODEL.NORM.NAME", "group"],
            "deepface has no batch normalization to replace; set MODEL.NORM.NAME batch",
        ),
        (["MODEL.NORM.GROUPS", "0"], "GROUPS 0 must be 1 or more"),
        (
            ["MODEL.NORM.NAME", "layer", "SOLVER.NORM_STATISTICS", "frozen"],
            "MODEL.NORM.NAME layer has no BatchNorm statistics",
        ),
        (["MODEL.NECK", "bnneck", "SOLVER.NORM_STATISTICS", "frozen"], "a new bnneck has no statistics"),
        (["MODEL.CLASSIFIER.SCALE", "0"], "SCALE 0.0 must be above 0"),
        (
            ["MODEL.CLASSIFIER.NAME", "cosine", "RRI.ROTATE_CLASSIFIER", "True", "RRI.VARIANT", "U"],
            "U does not, US and rotate do",
        ),
        (["STEP0.LR_FACTORS", "neck.fc6"], "'neck.fc6' must be a name and a factor above 0"),
        (["STEP0.LR_FACTORS", "neck.fc6=0"], "'neck.fc6=0' must be a name and a factor above 0"),
        (["RRI.ROTATE_CLASSIFIER", "True", "MODEL.EIGENLAYER.RELU", "True"], "plain Eigenlayer"),
        (["MODEL.EIGENLAYER.LAST", "True", "MODEL.EIGENLAYER.DIM", "5"], "the classifier"),
        (["RRI.PATIENCE", "0"], "PATIENCE"),
        (["SOLVER.MOMENTUM", "True"], "must be a number"),
        (["RRI.CONTROL", "1"], "must be True or False"),
        (["STEP0.LR", "[1e999]"], "finite"),
        (["SOLVER.WEIGHT_DECAY", "-1"], "WEIGHT_DECAY -1.0 must be 0 or more"),
        (["RESTRAINT.GAMMA", "-3"], "GAMMA -3.0 must be 0 to 1"),
        (["SEED", "99999999999"], "SEED 99999999999 must be 0 to"),
        (["MODEL.WEIGHTS", ""], "must not be empty"),
        (["MODEL.POOLING.P", "0"], "POOLING.P 0.0 must be above 0"),
        (["LOSS.IDENTITY", "0"], "LOSS: every loss has weight 0"),
        (["LOSS.TRIPLET", "1"], "LOSS.TRIPLET: compares images of the same identity, .*; set SAMPLER.NAME identity"),
        (["LOSS.CONTRASTIVE", "1"], "SAMPLER.NAME identity or mined"),
        (
            ["LOSS.IDENTITY", "0", "LOSS.TRIPLET", "1", "SAMPLER.NAME", "identity"],
            "no loss depends on the weight of the Eigenlayer",
        ),
        (
            ["SOLVER.NORM_STATISTICS", "frozen", "MODEL.BACKBONE", "resnet50", "MODEL.NECK", "fc512"],
            "a new fc512 has no statistics to keep",
        ),
        (["MODEL.POOLING.NAME", "flatten", "MODEL.POOLING.L2", "True"], "POOLING.L2: not for flattening"),
        (["LOSS.CIRCLE", "1", "SAMPLER.NAME", "mined"], "SAMPLER.NAME mined: only for LOSS.CONTRASTIVE"),
        (["LOSS.CONTRASTIVE", "1", "SAMPLER.NAME", "mined", "SAMPLER.NEGATIVES", "3"], "32 must be a multiple of 5"),
        (["LOSS.CONTRASTIVE_TAU", "2.5"], "CONTRASTIVE_TAU 2.5 must be"),
        (
            ["SAMPLER.NAME", "identity", "SAMPLER.INSTANCES", "32"],
            "must hold at least two identities of SAMPLER.INSTANCES 32",
        ),
        (["SAMPLER.NAME", "identity", "SAMPLER.INSTANCES", "5"], "BATCH_SIZE 32 must be a multiple of 5"),
        (["SAMPLER.INSTANCES", "1"], "INSTANCES 1 must be 2 or more"),
        (["LOSS.PENALTY", "so"], "PENALTY so and LOSS.PENALTY_WEIGHT 0.0 must both be set or neither"),
        (["LOSS.PENALTY_WEIGHT", "1"], "PENALTY none and LOSS.PENALTY_WEIGHT 1.0 must both be set or neither"),
        (["LOSS.PENALTY_STEPS", "[0.5, 0.2]", "LOSS.PENALTY_FACTORS", "[1, 2]"], "increasing fractions of a stage"),
        (["LOSS.PENALTY_STEPS", "[0.5, 0.6]"], "one per LOSS.PENALTY_FACTORS"),
        (["LOSS.PENALTY_FACTORS", "[-1]"], "must be 0 or more"),
        (
            ["MODEL.EIGENLAYER.PARAMETRIZATION", "orthogonal"],
            "W cannot be replaced; set RRI.MAX_ROUNDS 0",
        ),
        (
            ["MODEL.CLASSIFIER.NAME", "arcface", "MODEL.EIGENLAYER.LAST", "True"],
            "arcface: MODEL.EIGENLAYER.LAST replaces the classifier",
        ),
        (
            ["MODEL.CLASSIFIER.NAME", "arcface", "RRI.ROTATE_CLASSIFIER", "True", "RRI.VARIANT", "QD"],
            "QD does not, US and rotate do",
        ),
        (["DATASETS.IDENTITIES", "0"], "DATASETS.IDENTITIES 0.0 must be"),
        (["MODEL.POOLING.CLUSTERS", "1"], "CLUSTERS 1 must be 2 or more"),
        (["MODEL.POOLING.NAME", "netvlad", "MODEL.POOLING.DESCRIPTORS", "63"], "DESCRIPTORS 63 .* the 64 clusters"),
        (["MODEL.POOLING.NAME", "ghost_vlad", "MODEL.POOLING.DESCRIPTORS", "64"], "DESCRIPTORS 64 .* the 65 clusters"),
        (["MODEL.POOLING.INIT", "kmeans"], "POOLING.INIT 'kmeans' must be one of kmeans_v1, kmeans_v2, random"),
        (["MODEL.POOLING.REGIONS", "0"], "REGIONS 0 must be 1 or more"),
        (["RELAXATION.OPTIMIZER", "adamx"], "RELAXATION.OPTIMIZER 'adamx' must be one of sgd, adam, adamw"),
    ],
)
def test_invalid_values_and_combinations(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_config("", overrides)


def test_a_python_file_is_refused_and_not_executed(tmp_path: Path) -> None:
    trap = tmp_path / "config.py"
    trap.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\ncfg = {{}}\n")
    with pytest.raises(InputError, match="never executed"):
        load_config(trap)
    assert not (tmp_path / "executed").exists()


def test_yaml_tags_do_not_run_code(tmp_path: Path) -> None:
    path = tmp_path / "trap.yaml"
    path.write_text(f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    with pytest.raises(InputError, match="invalid YAML"):
        load_config(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[1, 2]", b"a: [", b"just text"])
def test_files_that_are_not_a_config(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match="broken"):
        load_config(path)


def test_a_missing_config_suggests_near_names(tmp_path: Path) -> None:
    (tmp_path / "demo_synthetic.yaml").write_text("")
    with pytest.raises(InputError, match="did you mean demo_synthetic"):
        load_config(tmp_path / "demo_syntetic.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SEED: " + "9" * 50, "64 bits"),
        ("STEP0: {GAMMA: 0x" + "f" * 50 + "}", "64 bits"),
        ("SEED: " + "9" * 400, "a number of more than 100 characters"),
        ("SEED: !!int x", "does not fit its tag"),
        ("[" * 5000, "nested deeper"),
        ("OUTPUT_DIR: " + "a" * 5000, "at most 4,096 characters"),
        ("&a {b: *a}", "nested deeper"),
    ],
)
def test_hostile_values_are_errors(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("value", ["0x" + "f" * 300, "[" * 300, "9" * 4200, "(" * 4000, "{[]: 1}"])
def test_hostile_overrides_are_errors(value: str) -> None:
    with pytest.raises(InputError):
        parse_config("", ["STEP0.GAMMA", value])


def test_a_configuration_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bundled = FOLDER / "demo_synthetic.yaml"
    for name in ("demo_synthetic", "demo_synthetic.yaml", "configs/demo_synthetic.yaml"):
        assert find_config(name) == bundled
    assert load_config("parts/pooling_gem").MODEL.POOLING.NAME == "gem"
    with pytest.raises(InputError, match=r"demo_syntetic: no such configuration \(did you mean demo_synthetic"):
        load_config("demo_syntetic")
    with pytest.raises(InputError, match=r"gem: no such configuration \(did you mean parts/pooling_gem"):
        load_config("parts/poling_gem")
    Path("demo_synthetic").mkdir()  # a folder, perhaps of a run, is no configuration
    assert find_config("demo_synthetic") == bundled
    Path("demo_synthetic.yaml").write_text("SEED: 7\n", encoding="utf-8")
    assert load_config("demo_synthetic").SEED == load_config("demo_synthetic.yaml").SEED == 7
