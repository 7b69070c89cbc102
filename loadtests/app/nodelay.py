"""HTTP whose answers leave at once, for uvicorn with several workers."""

from __future__ import annotations

import asyncio
from socket import IPPROTO_TCP, TCP_NODELAY

from uvicorn.protocols.http.auto import AutoHTTPProtocol


class NoDelayProtocol(AutoHTTPProtocol):
    """Uvicorn's own protocol, on connections without Nagle's algorithm.

    With `--workers 2` uvicorn leaves it on, so the body of an answer waits for the client to
    acknowledge the headers: 40 ms for each request but the first, which would hide what a cache
    does. https://github.com/Kludex/uvicorn/issues/3149
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what is written at once, from the first answer on."""
        transport.get_extra_info("socket").setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        super().connection_made(transport)
