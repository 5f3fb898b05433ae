"""Exact retrieval evaluation after the Market-1501 protocol: arrays in, scores out."""

from reid.ranking.distance import METRICS, distance_blocks, normalise_rows
from reid.ranking.evaluation import evaluate, matches_and_junk, rank_matches
from reid.ranking.metrics import Ranking

__all__ = ["METRICS", "Ranking", "distance_blocks", "evaluate", "matches_and_junk", "normalise_rows", "rank_matches"]
