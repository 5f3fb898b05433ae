"""An index of crops in Milvus, for galleries that outgrow one machine: extra `milvus`.

One collection holds one index: an entity per image with its labels, the digest of its file and its feature, and one
entity with the metadata. An entity's key is a digest of the image's path, so that writing it again changes nothing: a
load that was interrupted goes on where it stopped. The same code works on a cluster and on the local files of Milvus
Lite.

Milvus finds candidates, and exact distances order them. Its recall of the exact ten nearest is measured when an index
is built, and again when it has grown or shrunk by half.
"""

from __future__ import annotations

from reid.search.milvus.connection import TOKEN_VARIABLE, Collection, parse_collection
from reid.search.milvus.entities import is_index, read_metadata
from reid.search.milvus.view import MilvusView, read_state
from reid.search.milvus.writer import MilvusIndex

__all__ = [
    "TOKEN_VARIABLE",
    "Collection",
    "MilvusIndex",
    "MilvusView",
    "is_index",
    "parse_collection",
    "read_metadata",
    "read_state",
]
