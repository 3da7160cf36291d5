"""What a connection may send before its request has even begun: so many bytes of headers, in so much time."""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEADER_BYTES = 65_536
HEADERS_WITHIN_S = 15.0


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which takes headers of any length at any pace, with limits."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        was_head = self._is_head
        super().data_received(data)
        if was_head and self._is_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEADER_BYTES and not self.transport.is_closing():
                self.send_400_response("Too many headers.")

    def on_message_begin(self) -> None:
        """See httptools."""
        super().on_message_begin()
        self._timer.cancel()
        self._begin_head()

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._is_head = False
        self._timer.cancel()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """See uvicorn, which would say it in plain text."""
        problem = {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": msg, "request_id": ""}
        content = json.dumps(problem).encode()
        head = (
            f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nContent-Length: {len(content)}\r\n"
        )
        self.transport.write(head.encode() + b"Connection: close\r\n\r\n" + content)
        self.transport.close()

    def _begin_head(self) -> None:
        self._is_head, self._head_bytes = True, 0
        self._timer: Any = self.loop.call_later(HEADERS_WITHIN_S, self._give_up)

    def _give_up(self) -> None:
        if self._is_head and not self.transport.is_closing():
            self.transport.close()
