"""A port of this machine, and a server on it until it is told to end."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket

import uvicorn
from fastapi import FastAPI

from reid.errors import InputError, stop_signals

_CONNECTIONS = 100


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens at an address of this machine. port: 0 for any that is free.

    Raises InputError for a port that is taken or reserved, and for what is no address of this machine.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: from 0, for any that is free, to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise InputError(f"--host {host}: no address of this machine; 127.0.0.1 is the usual one") from None
    listening = socket.socket(family, kind)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} is in use: choose another --port, or 0 for any that is free") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise InputError(f"port {port} is reserved for the system: choose a --port above 1023") from None
        raise InputError(f"--host {host}: cannot be listened at ({error.strerror})") from None
    return listening


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def address(listening: socket.socket) -> str:
    """What to open in a browser."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def make_server(app: FastAPI) -> uvicorn.Server:
    """A server that writes nothing but faults of ours: addresses may hold a token."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=3,
        )
    )


def run(app: FastAPI, listening: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM; to be called in the main thread."""
    with contextlib.suppress(KeyboardInterrupt), stop_signals():
        make_server(app).run(sockets=[listening])
