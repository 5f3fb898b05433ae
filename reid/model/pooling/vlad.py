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
    """Base class of VLADs: V(k) = sum over positions of a_k(x) (x - c_k), with x of unit length.

    Each V(k) is normalized to unit length, then all of them together: (B, K C). If no descriptor of an image belongs to
    a cluster, its V(k) is 0. The centers c, (K, C), are trained.

    Args:
        channels: Number of channels C.
        clusters: Number of clusters K.
        init: Initialization, one of `INITS`.

    Raises:
        InputError: If `init` is unknown or there are fewer than 2 clusters.
    """

    def __init__(self, channels: int, *, clusters: int = 64, init: str = "kmeans_v2") -> None:
        super().__init__(channels)
        if init not in INITS:
            raise unknown_name("initialization of a VLAD", init, INITS)
        if clusters < 2:
            raise InputError(f"a VLAD needs 2 clusters or more, not {clusters}")
        self.clusters = clusters
        self.init = init
        self.min_descriptors = 0 if init == "random" else clusters
        # Descriptors have unit length, so random centers get it too. Existing checkpoints use the name "centres".
        self.centres = nn.Parameter(functional.normalize(torch.randn(clusters, channels), dim=1))

    def width(self, channels: int) -> int:
        """Compute the width of the pooled vector.

        Args:
            channels: Number of channels of the map.

        Returns:
            K C.
        """
        return self.clusters * channels

    def _pool(self, maps: Tensor) -> Tensor:
        descriptors = _descriptors(maps)
        assigned = self._assign(descriptors)[:, : self.clusters]
        residuals = assigned @ descriptors.transpose(-2, -1) - assigned.sum(2, keepdim=True) * self.centres
        return functional.normalize(functional.normalize(residuals, dim=2).flatten(1), dim=1)

    def _attention(self, maps: Tensor) -> Tensor:
        """Compute a, (B, K, h, w), which sums to 1 per position; GhostVLAD's ghosts are the last of K + G."""
        return self._assign(_descriptors(maps)).unflatten(2, maps.shape[2:])

    @abstractmethod
    def _assign(self, descriptors: Tensor) -> Tensor:
        """Compute a of descriptors of unit length: (B, C, N) -> (B, K, N), or (B, K + G, N)."""


class HardVLAD(VLAD):
    """VLAD that assigns every descriptor to only its nearest center."""

    def _assign(self, descriptors: Tensor) -> Tensor:
        # |x - c|^2 without |x|^2, which is the same for all centers.
        distances = self.centres.square().sum(1)[:, None] - 2 * self.centres @ descriptors
        return functional.one_hot(distances.argmin(1), self.clusters).transpose(-2, -1).to(descriptors.dtype)

    def initialize(self, descriptors: np.ndarray, *, seed: int) -> None:
        """Initialize the centers by k-means.

        Args:
            descriptors: (N, C) float32, N at least `min_descriptors`.
            seed: Seed of k-means.

        Raises:
            InputError: If there are fewer distinct descriptors than clusters.
        """
        centers, _ = cluster(_unit(descriptors), self.clusters, seed=seed)
        _fill(self.centres, centers)


class NetVLAD(VLAD):
    """VLAD with a = softmax over the clusters of w_k x + b_k; with ghosts, GhostVLAD.

    Its softmax also runs over the ghosts, which take descriptors from the other clusters; their residuals are dropped.
    w, b and c are trained separately. K-means finds K + G centers; the G with the fewest descriptors are the ghosts.

    Args:
        channels: Number of channels C.
        clusters: Number of clusters K.
        ghosts: Number of ghost clusters G.
        init: "kmeans_v2" (Eq. 3 and 4 of the paper: w = 2 alpha c, b = -alpha |c|^2), "kmeans_v1" (w = alpha c / |c|,
            no b) or "random".

    Raises:
        InputError: If `init` is unknown, there are fewer than 2 clusters or the number of ghosts is negative.
    """

    def __init__(self, channels: int, *, clusters: int = 64, ghosts: int = 0, init: str = "kmeans_v2") -> None:
        super().__init__(channels, clusters=clusters, init=init)
        if ghosts < 0:
            raise InputError(f"GhostVLAD cannot have {ghosts} ghost clusters; 0 is NetVLAD")
        self.ghosts = ghosts
        if self.min_descriptors:
            self.min_descriptors = clusters + ghosts
        self.assignment = nn.Linear(channels, clusters + ghosts, bias=init != "kmeans_v1")

    def _assign(self, descriptors: Tensor) -> Tensor:
        return self.assignment(descriptors.transpose(-2, -1)).transpose(-2, -1).softmax(1)

    def initialize(self, descriptors: np.ndarray, *, seed: int) -> None:
        """Initialize the centers by k-means and the soft assignment that fits them.

        Args:
            descriptors: (N, C) float32, N at least `min_descriptors`.
            seed: Seed of k-means.

        Raises:
            InputError: If there are fewer distinct descriptors than clusters.
        """
        descriptors = _unit(descriptors)
        centers, sizes = cluster(descriptors, self.clusters + self.ghosts, seed=seed)
        if self.ghosts:
            centers = centers[np.argsort(-sizes, kind="stable")]
        _fill(self.centres, centers[: self.clusters])
        if self.init == "kmeans_v1":
            _fill(self.assignment.weight, soft_assignment_v1(centers, descriptors)[0])
        else:
            weight, bias, _ = soft_assignment_v2(centers, descriptors)
            _fill(self.assignment.weight, weight)
            _fill(self.assignment.bias, bias)


def net_vlad(channels: int, *, clusters: int = 64, init: str = "kmeans_v2") -> NetVLAD:
    """Build a NetVLAD without ghosts.

    Args:
        channels: Number of channels C.
        clusters: Number of clusters K.
        init: Initialization, one of `INITS`.

    Returns:
        NetVLAD with random centers until `initialize` is called.
    """
    return NetVLAD(channels, clusters=clusters, init=init)


def _descriptors(maps: Tensor) -> Tensor:
    """Return the descriptors of all positions, of unit length, (B, C, h w)."""
    return functional.normalize(maps.flatten(2), dim=1)


def _unit(descriptors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
    return np.divide(descriptors, lengths, out=np.zeros_like(descriptors), where=lengths > 0)


def _fill(parameter: Tensor, values: np.ndarray) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))
