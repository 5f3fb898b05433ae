"""The values that keys of the configuration may take, each on its own."""

from __future__ import annotations

import math

from reid.decorrelation import ORDERS, VARIANTS

STAGES = ("STEP0", "RESTRAINT", "RELAXATION")

DATASETS = (
    *("synthetic", "market1501", "market1501_500k", "dukemtmcreid", "msmt17"),
    *("cuhk03np_labelled", "cuhk03np_detected", "cuhk01", "folder"),
)

# Names a key may take. Rooms above this one hold the dicts of functions; a test keeps both sides equal.
CHOICES: dict[str, tuple[str, ...]] = {
    "MODEL.BACKBONE": (
        *("resnet18", "resnet34", "resnet50", "resnet101"),
        *("osnet_x0_25", "osnet_x0_5", "osnet_x0_75", "osnet_x1_0"),
        *("caffenet", "deepface", "small_full", "small_local", "small_tiled", "small_convolution"),
    ),
    "MODEL.POOLING.NAME": (
        *("average", "max", "average_max", "gem", "weighted_gem", "weighted_sum", "regional_weighted_gem"),
        *("crow", "rmac", "hard_vlad", "netvlad", "ghost_vlad", "flatten"),
    ),
    "MODEL.POOLING.INIT": ("kmeans_v1", "kmeans_v2", "random"),
    "MODEL.NORM.NAME": ("batch", "sync_batch", "instance", "layer", "group", "weight", "cosine", "ibn_a", "ibn_b"),
    "MODEL.STEM": ("standard", "no_relu", "ceil"),
    "MODEL.NECK": ("none", "bnneck", "fc512"),
    "MODEL.CLASSIFIER.NAME": ("linear", "cosine", "arcface", "cosface"),
    "MODEL.EIGENLAYER.PARAMETRIZATION": ("none", "orthogonal", "scaled_orthogonal"),
    "MODEL.EIGENLAYER.ORTHOGONAL_MAP": ("matrix_exp", "cayley", "householder"),
    "INPUT.RESIZE": ("bilinear", "bicubic"),
    "INPUT.POLICY": ("none", "autoaugment", "randaugment", "trivialaugment"),
    "INPUT.CACHE": ("on", "off"),
    "INPUT.DEVICE_CACHE": ("auto", "on", "off"),
    "INPUT.CORRUPT": ("error", "skip"),
    "SAMPLER.NAME": ("shuffled", "identity", "mined"),
    "LOSS.FEATURE": ("input", "output"),
    "LOSS.PENALTY": ("none", "so", "dso", "srip", "svmo"),
    "DATASETS.NAME": DATASETS,
    "DATASETS.TARGET": ("", *DATASETS),
    "DATASETS.SYNTHETIC.SIZE": ("tiny", "demo", "market"),
    "DATASETS.SYNTHETIC.LAYOUT": ("market", "duke"),
    "SOLVER.OPTIMIZER": ("sgd", "adam", "adamw"),
    "SOLVER.PRECISION": ("auto", "float32", "bfloat16"),
    "SOLVER.NORM_STATISTICS": ("running", "frozen"),
    "SOLVER.FUSED": ("auto", "always", "never"),
    "SOLVER.NONFINITE": ("stop", "skip"),
    "RRI.VARIANT": VARIANTS,
    "RRI.ORDER": ORDERS,
    "TEST.FEATURE": ("input", "output"),
    "TEST.PRECISION": ("auto", "float32", "bfloat16"),
    **{f"{stage}.SCHEDULE": ("constant", "step", "cosine") for stage in STAGES},
    **{f"{stage}.OPTIMIZER": ("", "sgd", "adam", "adamw") for stage in STAGES},
}

# Keys of earlier versions, which checkpoints and files may still hold, and what they are called now.
RENAMED = {"MODEL.POOLING": "MODEL.POOLING.NAME"}

# Height and width of the images that a backbone was made for, where it takes no others.
INPUT_SIZES = {
    "caffenet": [227, 227],
    "deepface": [152, 152],
    **{f"small_{connection}": [128, 64] for connection in ("full", "local", "tiled", "convolution")},
}

# The smallest and largest value of numbers that stand alone.
RANGES: dict[str, tuple[float, float]] = {
    "SEED": (0, 2**31 - 1),
    "MODEL.LAST_STRIDE": (0, 2),
    "MODEL.DROPOUT": (0, 0.99),
    "MODEL.NORM.GROUPS": (1, math.inf),
    "MODEL.POOLING.REGIONS": (1, math.inf),
    "MODEL.POOLING.LEVELS": (1, 99),
    "MODEL.POOLING.CLUSTERS": (2, math.inf),
    "MODEL.POOLING.GHOSTS": (0, math.inf),
    "MODEL.POOLING.DESCRIPTORS": (1, math.inf),
    "MODEL.EIGENLAYER.DIM": (0, math.inf),
    "MODEL.CLASSIFIER.MARGIN": (0, 3),
    "SAMPLER.INSTANCES": (2, math.inf),
    "SAMPLER.NEGATIVES": (1, math.inf),
    **{f"LOSS.{name}": (0, math.inf) for name in ("IDENTITY", "TRIPLET", "CONTRASTIVE", "CIRCLE", "CENTER")},
    "LOSS.TRIPLET_MARGIN": (0, math.inf),
    "LOSS.CONTRASTIVE_TAU": (1e-9, 2),
    "LOSS.CIRCLE_MARGIN": (0, 1),
    "LOSS.CIRCLE_SCALE": (1e-9, math.inf),
    "LOSS.CENTER_RATE": (0, 1),
    "LOSS.PENALTY_WEIGHT": (0, math.inf),
    "INPUT.FLIP": (0, 1),
    "INPUT.PAD": (0, 256),
    "INPUT.ERASING": (0, 1),
    **{f"INPUT.JITTER.{name}": (0, 10) for name in ("BRIGHTNESS", "CONTRAST", "SATURATION")},
    "INPUT.JITTER.HUE": (0, 0.5),
    "INPUT.JITTER.PROBABILITY": (0, 1),
    "INPUT.THREADS": (0, 1024),
    "DATASETS.IDENTITIES": (1e-9, 1),
    "DATASETS.SPLIT_SEED": (0, 2**31 - 1),
    "DATASETS.FOLDER_TEST": (1e-9, 1),
    "DATASETS.SYNTHETIC.SEED": (0, 2**31 - 1),
    "SOLVER.MOMENTUM": (0, 1),
    "SOLVER.WEIGHT_DECAY": (0, math.inf),
    "SOLVER.BIAS_LR_FACTOR": (0, math.inf),
    "SOLVER.BATCH_SIZE": (2, math.inf),
    "SOLVER.LABEL_SMOOTHING": (0, 0.99),
    "SOLVER.ACCUMULATE": (1, math.inf),
    "SOLVER.CLIP": (0, math.inf),
    "SOLVER.EMA": (0, 0.999999),
    "CHECKPOINT.MINUTES": (0, math.inf),
    "RRI.MAX_ROUNDS": (0, 99),
    "RRI.PATIENCE": (1, math.inf),
    "RRI.TOLERANCE": (0, math.inf),
    "RRI.LOSS_IMAGES": (1, math.inf),
    "TEST.BATCH_SIZE": (1, math.inf),
    **{f"{stage}.EPOCHS": (1, math.inf) for stage in STAGES},
    **{f"{stage}.GAMMA": (0, 1) for stage in STAGES},
    **{f"{stage}.WARMUP_EPOCHS": (0, math.inf) for stage in STAGES},
    **{f"{stage}.SETTLE_EPOCHS": (0, math.inf) for stage in STAGES},
    **{f"{stage}.SETTLE_TOLERANCE": (0, 1) for stage in STAGES},
}
