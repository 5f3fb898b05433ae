"""Every key of the configuration, declared once.

The defaults, the checks of single values, the suggestions of near names, the earlier names of keys and the table in
`docs/configuration.md` all come from `KEYS`. Rules that concern several keys at once are in `reid.config.checks`.
"""

from __future__ import annotations

from reid.config.declaration import Key
from reid.data import DATASETS
from reid.data.augmentation.policy import POLICIES
from reid.data.images.decode import FILTERS
from reid.data.synthetic.layout import FOLDERS, SIZES
from reid.decorrelation import ORDERS, VARIANTS
from reid.evaluation.features import ENGINES
from reid.losses.orthogonality import PENALTIES
from reid.model.backbones import BACKBONES
from reid.model.backbones.resnet import STEMS
from reid.model.backbones.timm_trunk import OWN_POOLING, PREFIX
from reid.model.classifiers import CLASSIFIERS
from reid.model.normalization import NORMS
from reid.model.parametrization import ORTHOGONAL_MAPS, PARAMETRIZATIONS
from reid.model.pooling import POOLINGS
from reid.model.pooling.kmeans import INITS
from reid.model.precision import PRECISIONS
from reid.records import IMAGENET_MEAN, IMAGENET_STD

OPTIMIZERS = ("sgd", "adam", "adamw")
LAST_SEED = 2**31 - 1


def _stage(name: str, epochs: int, milestones: tuple[float, ...]) -> dict[str, Key]:
    """The keys of one kind of training stage."""
    keys = {
        "EPOCHS": Key(epochs, "Number of epochs.", low=1),
        "LR": Key((1e-3,), "Learning rate of each round; the last one is repeated. STEP0 has exactly one."),
        "SCHEDULE": Key("step", "Learning rate schedule within the stage.", ("constant", "step", "cosine")),
        "MILESTONES": Key(
            milestones, "For `step`: fractions of the stage at which the learning rate is multiplied by GAMMA."
        ),
        "GAMMA": Key(0.1, "For `step`: factor of the learning rate at each milestone.", low=0, high=1),
        "WARMUP_EPOCHS": Key(0.0, "Epochs of linear warmup from a hundredth of the learning rate.", low=0),
        "FREEZE": Key(
            (), 'Prefixes of parameter names to freeze, or "norm" for scale and shift of every normalization layer.'
        ),
        "SETTLE_EPOCHS": Key(
            0, "Stop the stage early if the training loss has not decreased for this many epochs; 0: never.", low=0
        ),
        "SETTLE_TOLERANCE": Key(0.01, "Minimum relative decrease of the loss to count as progress.", low=0, high=1),
        "OPTIMIZER": Key("", "Optimizer of this stage; empty: SOLVER.OPTIMIZER.", ("", *OPTIMIZERS)),
        "LR_FACTORS": Key(
            (), "Learning rate factors by prefix of the parameter name, such as `neck.fc6=0.5`; the last match applies."
        ),
    }
    return {f"{name}.{key}": declaration for key, declaration in keys.items()}


_GENERAL = {
    "OUTPUT_DIR": Key("runs/svdnet", "Run folder.", movable=True),
    "THREADS": Key(
        0,
        "CPU threads of PyTorch, engines and decoding; 0: OMP_NUM_THREADS, else in a training by timing, elsewhere all "
        "cores; engines and decoding take no more than there are cores. Commands that read a checkpoint ignore the "
        "number in it.",
        low=0,
        high=1024,
        movable=True,
    ),
    "SEED": Key(0, "Seed of every random number of the run.", low=0, high=LAST_SEED),
    "ENGINE": Key(
        "auto",
        "What embeds images in train, evaluate, extract, ranks and diagnose; `auto`: on a CPU the fastest installed "
        "engine that agrees with PyTorch, if it saves more time than its preparation takes.",
        ENGINES,
        movable=True,
    ),
    "TENSORBOARD": Key(False, "Also write TensorBoard events.", movable=True),
}

_MODEL = {
    "MODEL.DEVICE": Key(
        "auto", "`auto` (CUDA if available), `cpu`, `cuda` or `cuda:N`.", movable=True, structural=False
    ),
    "MODEL.BACKBONE": Key(
        "resnet50", f"Backbone network; `{PREFIX}NAME` is a network of timm.", tuple(BACKBONES), prefix=PREFIX
    ),
    "MODEL.WEIGHTS": Key(
        "imagenet",
        "Initial weights: `imagenet` (downloaded by torchvision or timm), `none` (from scratch) or a file.",
        structural=False,
    ),
    "MODEL.STEM": Key(
        "standard",
        "Stem of a ResNet: `no_relu` and `ceil` as in reid-strong-baseline and fast-reid.",
        STEMS,
    ),
    "MODEL.LAST_STRIDE": Key(
        0, "Stride of the last stage of a ResNet, 1 or 2; 0: as in the original network.", low=0, high=2
    ),
    "MODEL.POOLING.NAME": Key(
        "average",
        f"Pooling of the feature map; `{OWN_POOLING}`: that of the network of timm, such as its class token.",
        (*POOLINGS, "flatten", OWN_POOLING),
        old_names=("MODEL.POOLING",),
    ),
    "MODEL.POOLING.L2": Key(False, "L2-normalize the pooled vector; the VLAD poolings always do."),
    "MODEL.POOLING.P": Key(
        3.0, "For `gem` and its weighted forms: initial exponent; 1 is the average, 3 is usual.", above=0
    ),
    "MODEL.POOLING.P_PER_CHANNEL": Key(False, "For `gem` and its weighted forms: one exponent per channel."),
    "MODEL.POOLING.P_LEARNABLE": Key(True, "For `gem` and its weighted forms: train the exponent."),
    "MODEL.POOLING.REGIONS": Key(4, "For `regional_weighted_gem`: number of regions.", low=1),
    "MODEL.POOLING.LEVELS": Key(3, "For `rmac`: number of scales.", low=1, high=99),
    "MODEL.POOLING.CLUSTERS": Key(64, "For `hard_vlad`, `netvlad` and `ghost_vlad`: number of clusters.", low=2),
    "MODEL.POOLING.GHOSTS": Key(1, "For `ghost_vlad`: number of ghost clusters.", low=0),
    "MODEL.POOLING.INIT": Key(
        "kmeans_v2",
        "Initialization of the VLAD poolings; `kmeans_v1`: softmax without bias, from cosines.",
        INITS,
        structural=False,
    ),
    "MODEL.POOLING.DESCRIPTORS": Key(
        50000, "Local descriptors of the training set that k-means uses.", low=1, structural=False
    ),
    "MODEL.NORM.NAME": Key("batch", "Normalization layers of the backbone.", NORMS),
    "MODEL.NORM.GROUPS": Key(32, "For `group`: number of groups.", low=1),
    "MODEL.NECK": Key(
        "none",
        "Layers before the Eigenlayer. `bnneck`: batch normalization; `fc512`: linear to 512, BatchNorm, ReLU.",
        ("none", "bnneck", "fc512"),
    ),
    "MODEL.CLASSIFIER.NAME": Key("linear", "Classifier of the identity loss.", CLASSIFIERS, structural=False),
    "MODEL.CLASSIFIER.SCALE": Key(
        16.0,
        "Scale of the cosines: initial value for `cosine`, fixed for `arcface` and `cosface`.",
        above=0,
        structural=False,
    ),
    "MODEL.CLASSIFIER.MARGIN": Key(
        0.0,
        "Margin of `arcface` (radians) and `cosface` (cosine); 0: as in the paper, 0.5 and 0.35.",
        low=0,
        high=3,
        structural=False,
    ),
    "MODEL.DROPOUT": Key(0.5, "Dropout probability before the classifier.", low=0, high=0.99, structural=False),
    "MODEL.EIGENLAYER.DIM": Key(0, "Number K of weight vectors; 0: min(1024, D_in).", low=0),
    "MODEL.EIGENLAYER.INIT_STD": Key(0.01, "Standard deviation of the initial weights.", above=0, structural=False),
    "MODEL.EIGENLAYER.BIAS": Key(False, "Add a bias (ablation of the paper)."),
    "MODEL.EIGENLAYER.RELU": Key(False, "Add a ReLU (ablation of the paper)."),
    "MODEL.EIGENLAYER.LAST": Key(False, "Use the Eigenlayer as the classifier (ablation of the paper)."),
    "MODEL.EIGENLAYER.PARAMETRIZATION": Key(
        "none",
        "Baselines of RRI: a weight matrix that is orthogonal at every step.",
        PARAMETRIZATIONS,
        structural=False,
    ),
    "MODEL.EIGENLAYER.ORTHOGONAL_MAP": Key(
        "matrix_exp", "Map of the parametrization.", ORTHOGONAL_MAPS, structural=False
    ),
}

_INPUT = {
    "INPUT.SIZE": Key((256, 128), "Height and width of the images, 16 to 1024 pixels each."),
    "INPUT.RESIZE": Key("bilinear", "Filter of the antialiased resize to SIZE.", FILTERS),
    "INPUT.FLIP": Key(0.5, "Probability of a horizontal flip of a training image.", low=0, high=1),
    "INPUT.PAD": Key(0, "Pixels of padding before the random crop.", low=0, high=256),
    "INPUT.ERASING": Key(0.0, "Probability of random erasing.", low=0, high=1),
    **{
        f"INPUT.JITTER.{name}": Key(
            0.0, f"{name.capitalize()} jitter x: the factor is uniform in [max(0, 1 - x), 1 + x].", low=0, high=10
        )
        for name in ("BRIGHTNESS", "CONTRAST", "SATURATION")
    },
    "INPUT.JITTER.HUE": Key(
        0.0, "Hue jitter x: the shift is uniform in [-x, x]; 0.5 is half the color circle.", low=0, high=0.5
    ),
    "INPUT.JITTER.PROBABILITY": Key(1.0, "Probability of color jitter for an image.", low=0, high=1),
    "INPUT.POLICY": Key(
        "none", "Augmentation policy of torchvision, with its default parameters.", ("none", *POLICIES)
    ),
    "INPUT.CACHE": Key(
        "on", "Cache of decoded images; `off`: decode an image each time it is used.", ("on", "off"), movable=True
    ),
    "INPUT.DEVICE_CACHE": Key(
        "auto",
        "Keep decoded training images in GPU memory; `auto`: if they take at most a third of it.",
        ("auto", "on", "off"),
        movable=True,
    ),
    "INPUT.THREADS": Key(
        0, "Decoding threads with CACHE `off`; 0: as many as PyTorch has, see THREADS.", low=0, high=1024, movable=True
    ),
    "INPUT.CORRUPT": Key(
        "error", "A training image that cannot be read: stop, or skip and count it.", ("error", "skip")
    ),
    "INPUT.MEAN": Key(IMAGENET_MEAN, "Mean of the RGB channels in [0, 1]."),
    "INPUT.STD": Key(IMAGENET_STD, "Standard deviation of the RGB channels in [0, 1]."),
}

_DATASETS = {
    "DATASETS.NAME": Key(
        "market1501",
        "Dataset, or several to train on together, such as `market1501+cuhk01`.",
        tuple(DATASETS),
        separator="+",
    ),
    "DATASETS.TARGET": Key("", "Dataset to test on; empty: the first of NAME.", ("", *DATASETS)),
    "DATASETS.ROOT": Key(
        "", "Folder of the datasets; empty: environment variable REID_DATA, else `datasets/`.", movable=True
    ),
    "DATASETS.CACHE": Key(
        "",
        "Folder for unpacked archives and decoded images; empty: REID_CACHE, else `~/.cache/reid`.",
        movable=True,
    ),
    "DATASETS.STRICT": Key(True, "Require the official image and identity counts."),
    "DATASETS.TOLERANCE": Key(
        0.5,
        "Largest fraction of queries without a match, and of gallery identities that are trained on; 1: any.",
        low=0,
        high=1,
        movable=True,
    ),
    "DATASETS.IDENTITIES": Key(
        1.0, "Fraction of the training identities to use, for quick comparisons.", low=1e-9, high=1
    ),
    "DATASETS.VALIDATION": Key(
        0.0,
        "Fraction of the training identities to hold out and test on instead of the test set; for tuning.",
        low=0,
        high=0.9,
    ),
    "DATASETS.SPLIT_SEED": Key(
        0, "Seed of the random split of `cuhk01` and of a `folder` without splits.", low=0, high=LAST_SEED
    ),
    "DATASETS.PATTERN": Key("", "For `folder`: identity and camera in a file path, such as `{identity}_c{camera}*`."),
    "DATASETS.FOLDER_ROOT": Key("", "For `folder`: its path; empty: ROOT.", movable=True),
    "DATASETS.FOLDER_TEST": Key(
        0.5, "For a `folder` without splits: fraction of the identities to test on.", low=1e-9, high=1
    ),
    "DATASETS.SYNTHETIC.SIZE": Key(
        "demo", "Size of the synthetic dataset.", tuple(dict.fromkeys(size for size, _ in SIZES))
    ),
    "DATASETS.SYNTHETIC.LAYOUT": Key(
        "market", "Folder layout and conventions of the synthetic dataset.", tuple(FOLDERS)
    ),
    "DATASETS.SYNTHETIC.SEED": Key(0, "Seed of the synthetic dataset.", low=0, high=LAST_SEED),
}

_SOLVER = {
    "SOLVER.OPTIMIZER": Key("sgd", "Optimizer.", OPTIMIZERS),
    "SOLVER.MOMENTUM": Key(0.9, "Momentum of `sgd`.", low=0, high=1),
    "SOLVER.AMSGRAD": Key(False, "AMSGrad variant of `adam` and `adamw`."),
    "SOLVER.WEIGHT_DECAY": Key(5e-4, "Weight decay.", low=0),
    "SOLVER.BIAS_LR_FACTOR": Key(1.0, "Learning rate factor of biases.", low=0),
    "SOLVER.BIAS_WEIGHT_DECAY": Key(True, "Apply weight decay to biases."),
    "SOLVER.BATCH_SIZE": Key(32, "Images per batch, over all processes.", low=2),
    "SOLVER.LABEL_SMOOTHING": Key(0.0, "Label smoothing of the identity loss.", low=0, high=0.99),
    "SOLVER.NORM_STATISTICS": Key(
        "running", "BatchNorm statistics in training; `frozen`: keep those of the weights.", ("running", "frozen")
    ),
    "SOLVER.PRECISION": Key(
        "auto",
        "Precision of the backbone in training; `auto`: bfloat16 where hardware and network are faster in it.",
        PRECISIONS,
    ),
    "SOLVER.TF32": Key(False, "Use TF32 for matrix products in training, not only for convolutions."),
    "SOLVER.FUSED": Key(
        "auto",
        "Fused optimizer kernel; `auto`: unless the run began without it.",
        ("auto", "always", "never"),
    ),
    "SOLVER.COMPILE": Key(False, "Compile the backbone with torch.compile."),
    "SOLVER.ACCUMULATE": Key(1, "Batches per optimizer step; their gradients are averaged.", low=1),
    "SOLVER.CLIP": Key(0.0, "Maximum gradient norm; 0: no limit.", low=0),
    "SOLVER.EMA": Key(
        0.0,
        "Decay of the moving average of the weights that ends every stage, such as 0.999; 0: none.",
        low=0,
        high=0.999999,
    ),
    "SOLVER.SYNC_BN": Key(False, "BatchNorm statistics over the batches of all processes, on GPUs."),
    "SOLVER.NONFINITE": Key(
        "stop", "A NaN or infinite loss: stop, or skip the batch and count it.", ("stop", "skip"), movable=True
    ),
}

_CHECKPOINT = {
    "CHECKPOINT.MINUTES": Key(
        0.0, "Also save mid-epoch, at this interval; 0: after every epoch only.", low=0, movable=True
    ),
}

_SAMPLER = {
    "SAMPLER.NAME": Key(
        "shuffled",
        "`identity`: P identities with INSTANCES images each; `mined`: tuples of anchor, match and negatives.",
        ("shuffled", "identity", "mined"),
    ),
    "SAMPLER.INSTANCES": Key(4, "For `identity`: images per identity.", low=2),
    "SAMPLER.NEGATIVES": Key(2, "For `mined`: hardest negatives per tuple, mined anew in every epoch.", low=1),
}

_LOSS = {
    "LOSS.IDENTITY": Key(1.0, "Weight of the identity loss.", low=0),
    "LOSS.TRIPLET": Key(0.0, "Weight of the batch-hard triplet loss.", low=0),
    "LOSS.CONTRASTIVE": Key(0.0, "Weight of the contrastive loss.", low=0),
    "LOSS.CIRCLE": Key(0.0, "Weight of the circle loss.", low=0),
    "LOSS.CENTER": Key(0.0, "Weight of the center loss.", low=0),
    "LOSS.FEATURE": Key(
        "input", "Side of the Eigenlayer whose features all losses but the identity loss compare.", ("input", "output")
    ),
    "LOSS.TRIPLET_MARGIN": Key(0.3, "Margin of the triplet loss.", low=0),
    "LOSS.CONTRASTIVE_TAU": Key(
        0.7, "Distance between L2-normalized features beyond which a negative pair has no loss.", low=1e-9, high=2
    ),
    "LOSS.CIRCLE_MARGIN": Key(0.25, "Margin of the circle loss.", low=0, high=1),
    "LOSS.CIRCLE_SCALE": Key(128.0, "Scale of the circle loss.", low=1e-9),
    "LOSS.CENTER_RATE": Key(0.5, "Update rate of the centers.", low=0, high=1),
    "LOSS.PENALTY": Key(
        "none", "Baselines of RRI: penalty on the Eigenlayer's deviation from orthogonality.", ("none", *PENALTIES)
    ),
    "LOSS.PENALTY_WEIGHT": Key(0.0, "Weight of the penalty.", low=0),
    "LOSS.PENALTY_STEPS": Key(
        (0.0,), "Fractions of a stage at which the penalty factor changes (see PENALTY_FACTORS)."
    ),
    "LOSS.PENALTY_FACTORS": Key((1.0,), "Factors of PENALTY_WEIGHT, one per step."),
}

_RRI = {
    "RRI.VARIANT": Key("US", "Matrix that replaces W; `rotate` and `none` are comparisons.", VARIANTS),
    "RRI.ORDER": Key("assignment", "Order of the columns of the replacement.", ORDERS),
    "RRI.ROTATE_CLASSIFIER": Key(False, "Rotate the classifier too, so that the logits stay the same."),
    "RRI.RESET_CLASSIFIER": Key(False, "Comparison: start a new classifier at each decorrelation."),
    "RRI.FREEZE_EIGENLAYER": Key(True, "Keep the Eigenlayer fixed during Restraint; False: comparison without it."),
    "RRI.MAX_ROUNDS": Key(7, "Maximum number of rounds.", low=0, high=99),
    "RRI.PATIENCE": Key(1, "Rounds without an increase of S(W) after which the iteration has converged.", low=1),
    "RRI.TOLERANCE": Key(0.01, "Minimum increase in S(W) to count as progress.", low=0),
    "RRI.FINAL_RESTRAINT": Key(False, "End with one more decorrelation and Restraint stage."),
    "RRI.CONTROL": Key(False, "Also train a control: the same network and epochs without the replacement."),
    "RRI.LOSS_IMAGES": Key(
        4096, "Training images on which the loss before and after a replacement is measured.", low=1
    ),
}

_TEST = {
    "TEST.FEATURE": Key("input", "Side of the Eigenlayer whose features the `final` score uses.", ("input", "output")),
    "TEST.NORMALIZED": Key(False, "L2-normalize the features of the `final` score."),
    "TEST.FLIP": Key(False, "Average the features of an image and its mirror image for the `final` score."),
    "TEST.BATCH_SIZE": Key(
        64,
        "Images per batch; on a CPU 64 is twice as fast as 256, since activations stay in the cache.",
        low=1,
        movable=True,
    ),
    "TEST.PRECISION": Key("float32", "Precision of the backbone in evaluation.", PRECISIONS),
}

STAGES = ("STEP0", "RESTRAINT", "RELAXATION")

KEYS: dict[str, Key] = {
    **_GENERAL,
    **_MODEL,
    **_INPUT,
    **_DATASETS,
    **_SOLVER,
    **_CHECKPOINT,
    **_SAMPLER,
    **_LOSS,
    **_stage("STEP0", 60, (0.4, 0.8)),
    "STEP0.CHECKPOINT": Key("", "Trained checkpoint of the same network to start from instead of training Step 0."),
    **_stage("RESTRAINT", 20, (0.625,)),
    **_stage("RELAXATION", 20, (0.625,)),
    **_RRI,
    **_TEST,
}

MOVABLE = frozenset(name for name, key in KEYS.items() if key.movable)
