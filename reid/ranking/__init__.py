"""Exact retrieval evaluation: features and labels in, scores out.

`evaluate` and `rank_matches` follow the Market-1501 protocol; the other functions are further protocols, search,
re-ranking and expansion. docs/ranking.md defines what exact means.
"""

from reid.ranking.bootstrap import paired_bootstrap, score_difference
from reid.ranking.distance import METRICS, distance_blocks, normalize_rows
from reid.ranking.evaluation import evaluate, rank_matches
from reid.ranking.expansion import augment_gallery, average_queries, expand_queries
from reid.ranking.metrics import Ranking, Work
from reid.ranking.protocols.market import matches_and_junk
from reid.ranking.protocols.multi_query import pool_queries
from reid.ranking.protocols.revisited import evaluate_revisited
from reid.ranking.protocols.single_shot import evaluate_single_shot
from reid.ranking.protocols.verification import verify
from reid.ranking.reranking.rerank import RerankOptions, rerank_blocks, rerank_ranking
from reid.ranking.search import Neighbors, top_k

__all__ = [
    "METRICS",
    "Neighbors",
    "Ranking",
    "RerankOptions",
    "Work",
    "augment_gallery",
    "average_queries",
    "distance_blocks",
    "evaluate",
    "evaluate_revisited",
    "evaluate_single_shot",
    "expand_queries",
    "matches_and_junk",
    "normalize_rows",
    "paired_bootstrap",
    "pool_queries",
    "rank_matches",
    "rerank_blocks",
    "rerank_ranking",
    "score_difference",
    "top_k",
    "verify",
]
