"""Connections between feature maps: full, local, convolution and tiled convolution."""

from reid.model.connection.costs import ConnectionCost, connection_costs
from reid.model.connection.locally_connected import LocallyConnected2d
from reid.model.connection.tiled import TiledConv2d

__all__ = ["ConnectionCost", "LocallyConnected2d", "TiledConv2d", "connection_costs"]
