"""The HTTP that uvicorn speaks: parsed by httptools, or by h11 where httptools has no wheel."""

import asyncio

MAX_HEAD = 65_536
"""Bytes that may come without completing a request's head or a part of its body; h11's own limit."""

Protocol: type[asyncio.Protocol]
try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:
    from uvicorn.protocols.http.h11_impl import H11Protocol

    Protocol = H11Protocol
else:

    class LimitedHttpTools(HttpToolsProtocol):
        """httptools itself keeps a head of any size in memory."""

        _incomplete = 0

        def data_received(self, data: bytes) -> None:
            self._incomplete += len(data)
            super().data_received(data)
            if self._incomplete > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("The request's head is too large.")

        def on_headers_complete(self) -> None:
            self._incomplete = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._incomplete = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._incomplete = 0
            super().on_message_complete()

    Protocol = LimitedHttpTools
