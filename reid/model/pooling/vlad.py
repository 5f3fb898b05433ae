"""Vectors of locally aggregated descriptors, hard and soft, with centers from k-means.

NetVLAD: Arandjelović, Gronat, Torii, Pajdla, Sivic, CVPR 2016. GhostVLAD: Zhong, Arandjelović, Zisserman, ACCV 2018.
Hard VLAD: Jégou, Douze, Schmid, Pérez, CVPR 2010.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from reid.errors import InputError, unknown_name
from reid.model.pooling.contract import Pooling
from reid.model.pooling.kmeans import INITS, cluster, soft_assignment_v1, soft_assignment_v2


class VLAD(Pooling):
    """V(k) = sum over places of a_k(x) (x - c_k), x of unit length; each V(k) of unit length, then the whole: (B, K C).

    Where a cluster takes nothing of an image its V(k) is 0. The centers c, (K, C), train with the rest.
    """

    def __init__(self, channels: int, *, clusters: int, init: str) -> None:
        super().__init__()
        if init not in INITS:
            raise unknown_name("initialization of a VLAD", init, INITS)
        if clusters < 2:
            raise InputError(f"a VLAD needs 2 clusters or more, not {clusters}")
        self.clusters = clusters
        self.init = init
        self.least_descriptors = 0 if init == "random" else clusters
        # Descriptors have unit length, so random centers get it too.
        self.centres = nn.Parameter(functional.normalize(torch.randn(clusters, channels), dim=1))

    def width(self, channels: int) -> int:
        return self.clusters * channels

    def pool(self, maps: Tensor) -> Tensor:
        descriptors = _descriptors(maps)
        assigned = self.assign(descriptors)[:, : self.clusters]
        residuals = assigned @ descriptors.mT - assigned.sum(2, keepdim=True) * self.centres
        return functional.normalize(functional.normalize(residuals, dim=2).flatten(1), dim=1)

    def weights(self, maps: Tensor) -> Tensor:
        """a, (B, K, h, w), the sum over the clusters of each place 1; GhostVLAD's ghosts come last of K + G."""
        return self.assign(_descriptors(maps)).unflatten(2, maps.shape[2:])

    @abstractmethod
    def assign(self, descriptors: Tensor) -> Tensor:
        """a of descriptors of unit length: (B, C, N) -> (B, K, N), or (B, K + G, N)."""


class HardVLAD(VLAD):
    """Every descriptor belongs to its nearest center alone."""

    def __init__(self, channels: int, *, clusters: int = 64, init: str = "kmeans_v2") -> None:
        super().__init__(channels, clusters=clusters, init=init)

    def assign(self, descriptors: Tensor) -> Tensor:
        # |x - c|^2 less |x|^2, which is the same for all centers
        distances = self.centres.square().sum(1)[:, None] - 2 * self.centres @ descriptors
        return functional.one_hot(distances.argmin(1), self.clusters).mT.to(descriptors.dtype)

    def initialize(self, descriptors: np.ndarray, *, seed: int) -> None:
        centres, _ = cluster(_unit(descriptors), self.clusters, seed=seed)
        _fill(self.centres, centres)


class NetVLAD(VLAD):
    """a = softmax over the clusters of w_k x + b_k; with `ghosts`, GhostVLAD: those clusters' residuals are dropped.

    init: kmeans_v2 (Eq. 3 and 4 of the paper: w = 2 alpha c, b = -alpha |c|^2), kmeans_v1 (w = alpha c / |c|, no b) or
    random. From then on w, b and c train apart. K-means finds K + G centers; the G with the fewest descriptors are
    the ghosts.
    """

    def __init__(self, channels: int, *, clusters: int = 64, ghosts: int = 0, init: str = "kmeans_v2") -> None:
        super().__init__(channels, clusters=clusters, init=init)
        if ghosts < 0:
            raise InputError(f"GhostVLAD cannot have {ghosts} ghost clusters; 0 is NetVLAD")
        self.ghosts = ghosts
        if self.least_descriptors:
            self.least_descriptors = clusters + ghosts
        self.assignment = nn.Linear(channels, clusters + ghosts, bias=init != "kmeans_v1")

    def assign(self, descriptors: Tensor) -> Tensor:
        return self.assignment(descriptors.mT).mT.softmax(1)

    def initialize(self, descriptors: np.ndarray, *, seed: int) -> None:
        descriptors = _unit(descriptors)
        centres, sizes = cluster(descriptors, self.clusters + self.ghosts, seed=seed)
        if self.ghosts:
            centres = centres[np.argsort(-sizes, kind="stable")]
        _fill(self.centres, centres[: self.clusters])
        if self.init == "kmeans_v1":
            _fill(self.assignment.weight, soft_assignment_v1(centres, descriptors)[0])
        else:
            weight, bias, _ = soft_assignment_v2(centres, descriptors)
            _fill(self.assignment.weight, weight)
            _fill(self.assignment.bias, bias)


def net_vlad(channels: int, *, clusters: int = 64, init: str = "kmeans_v2") -> NetVLAD:
    """NetVLAD without ghosts."""
    return NetVLAD(channels, clusters=clusters, init=init)


def ghost_vlad(channels: int, *, clusters: int = 64, ghosts: int = 1, init: str = "kmeans_v2") -> NetVLAD:
    """NetVLAD whose softmax also runs over `ghosts` clusters that take descriptors away from the others."""
    return NetVLAD(channels, clusters=clusters, ghosts=ghosts, init=init)


def _descriptors(maps: Tensor) -> Tensor:
    """The descriptors of all places, of unit length, (B, C, h w)."""
    return functional.normalize(maps.flatten(2), dim=1)


def _unit(descriptors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
    return np.divide(descriptors, lengths, out=np.zeros_like(descriptors), where=lengths > 0)


def _fill(parameter: Tensor, values: np.ndarray) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))
