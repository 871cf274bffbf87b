"""Where a service listens, and the token that it asks for."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from powergrid.errors import PowerGridError
from powergrid.files import read_bytes

#: Environment variable of the token.
TOKEN_VARIABLE = "POWERGRID_TOKEN"
#: Fewest characters that a token may have.
SHORTEST = 16


def find_token(file: str | Path | None = None) -> tuple[str, bool]:
    """Return the token, and whether it is new and nobody knows it yet.

    Args:
        file: File that holds it; the environment variable ``POWERGRID_TOKEN``, or a new one, if None.

    Raises:
        PowerGridError: the file cannot be read, or the token is shorter than 16 characters or no printable ASCII.
    """
    if file is not None:
        where = str(file)
        token = read_bytes(Path(file).expanduser(), 10_000).decode("utf-8", "replace").strip()
    elif (given := os.environ.get(TOKEN_VARIABLE)) is not None:
        where, token = TOKEN_VARIABLE, given.strip()
    else:
        return secrets.token_urlsafe(32), True
    if len(token) < SHORTEST or not (token.isascii() and token.isprintable()) or " " in token:
        remedy = "for example: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        raise PowerGridError(f"{where}: a token has at least {SHORTEST} printable characters, no blanks; {remedy}")
    return token, False


def open_server(app: Any, host: str, port: int) -> tuple[Any, socket.socket, str]:
    """Return a server of an application, the socket that it is to be run on, and its address.

    Args:
        app: The application.
        host: Address or name where to listen.
        port: Port; 0 takes a free one.

    Raises:
        PowerGridError: nothing can listen there.
    """
    import uvicorn

    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)  # from now on whoever reads the address can connect
    except (OSError, OverflowError) as error:
        listener.close()
        raise PowerGridError(f"cannot listen at {host}, port {port}: {error}") from None
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    shown = f"[{host}]" if ":" in host else host
    return server, listener, f"http://{shown}:{listener.getsockname()[1]}"


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own, which nobody else reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
