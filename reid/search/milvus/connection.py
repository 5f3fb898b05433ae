"""The address of a collection, and calls to its server with errors in one line."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reid.errors import InputError, install_command

# User and password as "USER:PASSWORD", or an API key.
TOKEN_VARIABLE = "MILVUS_TOKEN"
_CONNECT_SECONDS = 10.0
# Until a call gives up, while pymilvus tries again to reach a server that went away.
_CALL_SECONDS = 60.0
_LOAD_SECONDS = 3600.0
_SLOW_CALLS = ("load_collection", "flush")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_REASON_LENGTH = 200


@dataclass(frozen=True)
class Collection:
    """A collection of a Milvus server.

    Attributes:
        uri: `http://HOST:PORT`, with `/DATABASE` if need be, or the path of a local file that ends in `.db`.
        name: Name of the collection.
    """

    uri: str
    name: str

    @property
    def file(self) -> Path | None:
        """The local file, None for a server."""
        return None if "://" in self.uri else Path(self.uri).expanduser()

    def __str__(self) -> str:
        return f"milvus:{self.uri}, index {self.name}"


def parse_collection(store: str, name: str) -> Collection:
    """Parse the place of an index in Milvus.

    Args:
        store: `milvus:URI`, see `Collection`.
        name: Name of the collection.

    Returns:
        The collection, which need not exist.

    Raises:
        InputError: If either is invalid, or the URI holds a password, which other users and logs would see.
    """
    kind, _, uri = store.partition(":")
    parts = urlsplit(uri)
    if parts.username is not None or parts.password is not None:
        raise InputError(f"--store: an address may not hold a password; set {TOKEN_VARIABLE}=USER:PASSWORD instead")
    is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    if kind != "milvus" or not (is_address or ("://" not in uri and uri.endswith(".db"))):
        raise InputError(f"--store {store}: must be milvus:http://HOST:19530, or milvus:FILE.db for a local file")
    if not _NAME.fullmatch(name):
        raise InputError(
            f"--index {name}: with --store it is the name of a collection, of letters, digits and underscores"
        )
    return Collection(uri, name)


class Connection:
    """Calls methods of `pymilvus.MilvusClient` on one collection.

    Args:
        collection: The collection, which need not exist.

    Raises:
        InputError: If pymilvus is missing, or the server cannot be reached.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        # gRPC's own lines on stderr say nothing that an exception does not.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        try:
            import pymilvus

            if collection.file is not None:
                import milvus_lite  # noqa: F401
        except ImportError as error:
            raise InputError(f"--store needs Milvus ({error}); {install_command('milvus')}") from None
        for name in ("pymilvus", "pymilvus.milvus_client", "milvus_lite", "grpc"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        file, token = collection.file, os.environ.get(TOKEN_VARIABLE, "")
        if file is not None and not file.absolute().parent.is_dir():
            raise InputError(f"{collection}: the folder {file.absolute().parent} does not exist")
        with self._translate_errors("cannot be opened", connecting=True):
            uri = collection.uri if file is None else str(file.absolute())
            self._client = pymilvus.MilvusClient(uri, token=token, timeout=_CONNECT_SECONDS)

    def __call__(self, method: str, **arguments: Any) -> Any:
        """Call a method of the client.

        Args:
            method: Name of the method.
            **arguments: Its arguments besides the name of the collection.

        Returns:
            What the method returns.

        Raises:
            InputError: If it fails.
        """
        seconds = _LOAD_SECONDS if method in _SLOW_CALLS else _CALL_SECONDS
        with self._translate_errors(f"{method} failed"):
            return getattr(self._client, method)(self.collection.name, timeout=seconds, **arguments)

    def scan(self, expression: str, fields: list[str], batch_size: int) -> Iterator[list[dict[str, Any]]]:
        """Read all entities that pass a filter.

        Args:
            expression: Filter.
            fields: Names of the fields to read.
            batch_size: Entities per call.

        Yields:
            Entities as dicts, in batches.

        Raises:
            InputError: If a call fails.
        """
        iterator = self("query_iterator", filter=expression, output_fields=fields, batch_size=batch_size)
        try:
            while True:
                with self._translate_errors("query failed"):
                    batch = iterator.next()
                if not batch:
                    return
                yield batch
        finally:
            iterator.close()

    @contextlib.contextmanager
    def _translate_errors(self, what: str, *, connecting: bool = False) -> Iterator[None]:
        import grpc
        from pymilvus.exceptions import ConnectionConfigException, MilvusException

        try:
            yield
        except ConnectionConfigException as error:
            advice = "does another process use it? A file serves one process at a time; or it is no file of Milvus Lite"
            raise InputError(f"{self.collection}: {what} ({_first_line(error)}); {advice}") from None
        except (MilvusException, grpc.RpcError, ValueError) as error:
            advice = (
                f"does the server run, is the address right, and does it need {TOKEN_VARIABLE}?"
                if connecting
                else "what was written is kept; when the server answers again, repeat the command"
            )
            raise InputError(f"{self.collection}: {what} ({_first_line(error)}); {advice}") from None


@functools.lru_cache(maxsize=16)
def connect(collection: Collection) -> Connection:
    """Connect to the server of a collection, once per process.

    Args:
        collection: The collection.

    Returns:
        The connection.

    Raises:
        InputError: If pymilvus is missing, or the server cannot be reached.
    """
    return Connection(collection)


def _first_line(error: Exception) -> str:
    message = getattr(error, "message", None) or str(error)
    return " ".join(str(message).split())[:_REASON_LENGTH]
