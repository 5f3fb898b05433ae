"""SVDNet in a training loop of your own: any network with an `nn.Linear` before its classifier, plain PyTorch.

    for report in RRI(model, model.embedding, rounds=7, tolerance=0.01):   # decorrelates model.embedding
        with restrained(model.embedding):
            train(model, epochs=3)                                         # Restraint: the rest adapts to it
        train(model, epochs=2)                                             # Relaxation: all of it trains

The optimizer is yours. As in the paper, each stage should start with a fresh optimizer and a learning rate schedule of
its own: momentum and squared gradients of an old optimizer belong to the coordinates before the replacement. Create it
within the stage, `train` above, so that Relaxation's contains the layer even if only parameters that require a gradient
are passed to it.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from reid.decorrelation.convergence import converged
from reid.decorrelation.correlation import condition_number, correlation_metric
from reid.decorrelation.layers import check_layer, check_network, check_next_operation
from reid.decorrelation.replace import Replacement, replace_weight, transform_classifier
from reid.errors import InputError, check_count

logger = logging.getLogger(__name__)

_ROTATIONS = ("US", "rotate")  # the variants whose M is orthogonal: f_new = M^T f, and the bias M^T b


@dataclass(frozen=True)
class RoundResult:
    """How a round of `RRI` ended.

    Attributes:
        number: From 1.
        correlation: S(W) after its Relaxation, in (0, 1].
        rise: That minus the best S(W) of earlier rounds; None in the first round.
        progress: Whether the rise is larger than the tolerance; None in the first round and without a tolerance.
        settled: Whether S(W) has settled, which ends the iteration; None without a tolerance.
    """

    number: int
    correlation: float
    rise: float | None = None
    progress: bool | None = None
    settled: bool | None = None

    def __str__(self) -> str:
        words = f"round {self.number} ended at S(W) {self.correlation:.3f}"
        if self.rise is not None:
            words += f", {self.rise:+.3f} on the best before"
        if self.settled is not None:
            words += ": " + "no progress, " * (self.progress is False) + "not " * (not self.settled) + "settled"
        return words


@dataclass(frozen=True)
class Decorrelation:
    """What `decorrelate_` did to a layer.

    Attributes:
        variant: One of `VARIANTS`.
        correlation_before: S(W) of the old weight, in [1/K, 1].
        correlation_after: S(W) of the new weight as it is stored: 1 within the rounding of its dtype for US, U and QD,
            and UVt. For 512 vectors about 3e-7 below 1 in float32, 3e-3 in float16 and 2e-2 in bfloat16.
        condition_number: Of the old weight, infinite if it is singular.
        singular_values: Those of the old weight, descending; K numbers.
        previous: In `RRI`, how the round before ended, of which `correlation_before` is the S(W); None in the first.
    """

    variant: str
    correlation_before: float
    correlation_after: float
    condition_number: float
    singular_values: tuple[float, ...]
    previous: RoundResult | None = None

    def __str__(self) -> str:
        words = (
            f"S(W) {self.correlation_before:.3f} -> {self.correlation_after:.3f} ({self.variant}), condition number "
            f"{self.condition_number:.3g}"
        )
        return words if self.previous is None else f"{words}; {self.previous}"


def decorrelate_(
    linear: nn.Linear,
    classifier: nn.Linear | None = None,
    *,
    variant: str = "US",
    order: str = "assignment",
    seed: int = 0,
) -> Decorrelation:
    """Replace the weight of a linear layer in place by one with orthogonal weight vectors (Sun et al. 2017).

    With US, the variant of the paper, the distances between outputs stay, also with a bias, which is rotated like the
    output. Embeddings must not be taken behind an activation such as ReLU, since distances there change; `RRI` checks
    this. The decomposition is computed on the CPU in float64 and rounded to the dtype of the layer. The parameters
    remain the same objects and keep `requires_grad`. If an error is raised, neither layer has changed.

    With several processes call it in each, outside of DistributedDataParallel, and wrap the network afterwards: the
    wrapper then copies the weights of the first process to all.

    Args:
        linear: The layer, K outputs and at least K inputs; its `weight`, (K, D_in), is W transposed.
        classifier: A layer that takes the outputs of `linear` directly, or through dropout, and is to keep its logits;
            its weight, (classes, K), is changed. Without, the logits change as in the paper, and Restraint restores
            them.
        variant: One of `VARIANTS`. "none" changes nothing, for a control.
        order: Which singular vector replaces which weight vector, one of `ORDERS`; see `replace_weight`.
        seed: Decides the rotation of the variant "rotate".

    Returns:
        S(W) before and after, and the singular values.

    Raises:
        InputError: If K > D_in, a layer is not an ordinary `nn.Linear` (see `check_layer`), both share a weight, the
            weight is zero, NaN or infinite, a name is unknown, the classifier does not have K inputs, the layer
            has a bias and the variant is not a rotation, or the new numbers exceed the range of the dtype.
    """
    check_layer(linear)
    if classifier is not None:
        check_layer(classifier, "classifier")
        if classifier.weight is linear.weight:
            raise InputError("the layer and the classifier share their weight; untie them before decorrelation")
    old = linear.weight.detach().to("cpu", copy=True).T
    before = correlation_metric(old)
    replacement = replace_weight(old, variant=variant, order=order, seed=seed)
    new = _new_numbers(linear, classifier, replacement, variant)
    if variant != "none":
        _write(new)
    return Decorrelation(
        variant=variant,
        correlation_before=before,
        correlation_after=correlation_metric(linear.weight.detach().cpu().T),
        condition_number=condition_number(old),
        singular_values=tuple(replacement.singular_values.tolist()),
    )


@contextlib.contextmanager
def restrained(linear: nn.Linear) -> Iterator[None]:
    """Keep a layer bit-identical while the rest of the network trains: Restraint (Sun et al. 2017, Section 3.2).

    Inside, the parameters of the layer require no gradient and their `.grad` is None. PyTorch's optimizers skip such a
    parameter entirely, also one that was created before and holds it: no step, no weight decay, and its momentum
    neither moves it nor decays. A gradient left from before would be applied, or grow with weight decay, therefore it
    is dropped; and so is one that appears inside, before `requires_grad` returns to what it was. At the end the layer
    is compared with how it was, since code of yours may still unfreeze or overwrite it, and so is what every optimizer
    that made a step inside holds for it, such as momentum, which would move it later.

    DistributedDataParallel has to be created inside: it waits for the gradient of every parameter that required one
    when it was created.

    Args:
        linear: The layer; whatever shares its parameters is frozen with it.

    Yields:
        Nothing.

    Raises:
        InputError: If it is not an ordinary `nn.Linear`, see `check_layer`.
        RuntimeError: At the end, if the layer has changed, with the names of what did. An exception raised inside
            takes precedence.
    """
    check_layer(linear)
    before = {name: _bits(tensor) for name, tensor in linear.state_dict().items()}
    required = [(parameter, parameter.requires_grad) for parameter in linear.parameters()]
    for parameter, _ in required:
        parameter.requires_grad_(False)
        parameter.grad = None
    held: dict[Optimizer, dict[str, Tensor]] = {}

    def remember(optimizer: Optimizer, args: object, kwargs: object) -> None:
        if optimizer not in held:
            held[optimizer] = _held_by(optimizer, linear)

    hook = register_optimizer_step_pre_hook(remember)
    try:
        yield
    finally:
        hook.remove()
        for parameter, requires_grad in required:
            parameter.grad = None
            parameter.requires_grad_(requires_grad)
    after = {name: _bits(tensor) for name, tensor in linear.state_dict().items()}
    moved = _differing(before, after)
    moved = moved or [name for optimizer in held for name in _differing(held[optimizer], _held_by(optimizer, linear))]
    if moved:
        raise RuntimeError(
            f"the restrained layer changed: {', '.join(moved)}. Something set requires_grad inside, or wrote to the "
            "parameters without an optimizer (initialization, averaging, loading)"
        )


class RRI:
    """The Restraint-and-Relaxation Iteration of Sun et al. 2017 as the loop around the training of your own.

    Iterating decorrelates the layer, yields what that did, and leaves Restraint and Relaxation to the body of the loop.
    When the body ends, S(W) is measured; the iteration stops when it has settled, or after `rounds`. Whether it has is
    part of the next report, in `last` after every round, and logged (INFO):

        rri = RRI(model, model.embedding, rounds=7, tolerance=0.01)
        for report in rri:
            with restrained(model.embedding):
                train(model, epochs=3)
            train(model, epochs=2)
        print(rri.last, rri.history, rri.stopped)

    The first forward pass with gradients in each round checks that no activation follows the layer, unless the network
    also returns the output of the layer, as what is compared. A final Restraint, after which the weight vectors are
    orthogonal, is `decorrelate_` and `restrained` once more. The control is a copy of the network before, with
    `rounds=len(rri.history), tolerance=None, variant="none"` and the same body.

    Attributes:
        history: S(W) after each finished round, in (0, 1].
        last: How the last finished round ended, with its rise of S(W) and whether that has settled; None before.
        stopped: "converged" or "max_rounds" after the loop; None before, and if it was left with `break`.
    """

    def __init__(
        self,
        model: nn.Module,
        linear: nn.Linear,
        rounds: int = 7,
        tolerance: float | None = 0.01,
        *,
        patience: int = 1,
        classifier: nn.Linear | None = None,
        variant: str = "US",
        order: str = "assignment",
        seed: int = 0,
    ) -> None:
        """Check the layer and the network; neither is changed before the iteration.

        Args:
            model: The network that is trained, with the layer in it; not wrapped in DistributedDataParallel.
            linear: The layer to decorrelate, see `decorrelate_`.
            rounds: Largest number of rounds.
            tolerance: Minimum rise of S(W), at least 0, that counts as progress; None for all `rounds`.
            patience: Number of rounds without progress after which S(W) has settled.
            classifier: Layer that is to keep its logits at each decorrelation, see `decorrelate_`.
            variant: One of `VARIANTS`; "none" for a control.
            order: One of `ORDERS`.
            seed: Decides the rotations of the variant "rotate".

        Raises:
            InputError: If an argument is out of range, or a layer or the network is refused by `check_layer` or
                `check_network`.
        """
        check_count("rounds", rounds)
        check_count("patience", patience)
        if tolerance is not None and not 0 <= tolerance < math.inf:
            raise InputError(f"tolerance must be 0 or more, or None for all rounds, not {tolerance}")
        check_layer(linear)
        check_network(model, linear, classifier)
        self.model, self.linear, self.classifier = model, linear, classifier
        self.rounds, self.tolerance, self.patience = rounds, tolerance, patience
        self.variant, self.order, self.seed = variant, order, seed
        self.history: list[float] = []
        self.last: RoundResult | None = None
        self.stopped: str | None = None

    def __iter__(self) -> Iterator[Decorrelation]:
        """Run the rounds, from the first one on.

        Yields:
            What the decorrelation at the start of the round did, and how the round before ended.

        Raises:
            InputError: If the layer cannot be decorrelated or is no longer part of the network, if it did not change
                during a round, or if an activation follows it.
        """
        self.history, self.last, self.stopped = [], None, None
        for round in range(1, self.rounds + 1):
            check_network(self.model, self.linear, self.classifier)
            report = decorrelate_(
                self.linear, self.classifier, variant=self.variant, order=self.order, seed=self.seed + round
            )
            before = _bits(self.linear.weight)
            end_check = check_next_operation(self.model, self.linear, with_classifier=self.classifier is not None)
            try:
                yield replace(report, previous=self.last)
            finally:
                end_check()
            if _equal(before, _bits(self.linear.weight)):
                raise InputError(
                    f"the weight of the layer did not change in round {round}, so Relaxation did not train it; create "
                    "its optimizer after Restraint has ended, with all parameters"
                )
            self.history.append(correlation_metric(self.linear.weight.detach().cpu().T))
            self.last = self._result()
            logger.info("%s", self.last)
            if self.last.settled:
                self.stopped = "converged"
                return
        self.stopped = "max_rounds"

    def _result(self) -> RoundResult:
        *before, correlation = self.history
        rise = correlation - max(before) if before else None
        if self.tolerance is None:
            return RoundResult(len(self.history), correlation, rise)
        progress = correlation > max(before) + self.tolerance if before else None
        settled = converged(self.history, tolerance=self.tolerance, patience=self.patience)
        return RoundResult(len(self.history), correlation, rise, progress, settled)


def _new_numbers(
    linear: nn.Linear, classifier: nn.Linear | None, replacement: Replacement, variant: str
) -> dict[Tensor, Tensor]:
    """Compute in float64 what each parameter becomes."""
    new: dict[Tensor, Tensor] = {linear.weight: replacement.weight.T}
    if linear.bias is not None and variant != "none":
        if variant not in _ROTATIONS:
            raise InputError(
                f"variant {variant} divides by singular values and cannot carry the bias of the layer; use US, or a "
                "layer with bias=False"
            )
        new[linear.bias] = replacement.classifier_transform.T @ linear.bias.detach().cpu().double()
    if classifier is not None:
        weight = classifier.weight.detach().cpu().double()
        new[classifier.weight] = transform_classifier(weight, replacement.classifier_transform)
    return new


@torch.no_grad()
def _write(new: dict[Tensor, Tensor]) -> None:
    """Round all to the dtypes of the parameters, and write them only if all are finite."""
    rounded = {parameter: values.to(parameter.dtype) for parameter, values in new.items()}
    for parameter, values in rounded.items():
        if not bool(torch.isfinite(values).all()):
            raise InputError(
                f"the new numbers exceed the range of {parameter.dtype}; convert the layer to float32 first, .float()"
            )
    for parameter, values in rounded.items():
        parameter.copy_(values)


def _held_by(optimizer: Optimizer, linear: nn.Linear) -> dict[str, Tensor]:
    """Copy the tensors that an optimizer holds for the parameters of a layer."""
    return {
        f"{key} of {name}": _bits(value)
        for name, parameter in linear.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def _differing(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    return [name for name in {**before, **after} if not _equal(before.get(name), after.get(name))]


def _bits(tensor: Tensor) -> Tensor:
    """Copy the bytes of a tensor to the CPU, for a comparison that also tells NaN and signs of zero apart."""
    return tensor.detach().cpu().contiguous().clone().reshape(-1).view(torch.uint8)


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    return first is not None and second is not None and torch.equal(first, second)
