"""An HTTP proxy that does to chosen requests what a network or an overloaded server does."""

from __future__ import annotations

import contextlib
import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message

Fault = Literal["409", "503 before", "503 after", "lost", "reset", "slow", "truncated", "part", "hangs"]
"""409: conflict, nothing is stored. 503: the answer before or after the server has done the request. lost: no answer to
a request that the server has done. reset: the connection ends before the request is sent. slow: half a second late.
truncated: half of the body. part: the
connections end when the server has half of the request's body. hangs: no answer and no end of the connection."""

FAULTS: tuple[Fault, ...] = ("409", "503 before", "503 after", "lost", "reset", "slow", "truncated", "part")

_CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code><Message>try again</Message></Error>"
_BUSY = b"<Error><Code>SlowDown</Code><Message>busy</Message></Error>"
_NOT_FORWARDED = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


class FaultProxy:
    """A proxy on a free port of 127.0.0.1. A context manager.

    Args:
        port: Port of the server on 127.0.0.1.
        fault_of: Function that returns the fault of a request, from its method, its path and its number from 0.

    Attributes:
        url: The endpoint.
        requests: Method and path of each request so far.
        most_in_flight: Largest number of requests that were in flight at one time.
    """

    def __init__(self, port: int, fault_of: Callable[[str, str, int], Fault | None] = lambda *_: None) -> None:
        self.port = port
        self.fault_of = fault_of
        self.requests: list[tuple[str, str]] = []
        self.most_in_flight = self._in_flight = 0
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._server.shutdown()
        self._server.server_close()

    def ignores(self, _headers: Message) -> bool:
        """Return True if a failed condition of the request counts as a success."""
        return False

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                with proxy._lock:
                    number = len(proxy.requests)
                    proxy.requests.append((self.command, self.path))
                    proxy._in_flight += 1
                    proxy.most_in_flight = max(proxy.most_in_flight, proxy._in_flight)
                try:
                    with contextlib.suppress(ConnectionError):
                        proxy._answer(self, proxy.fault_of(self.command, self.path, number))
                finally:
                    with proxy._lock:
                        proxy._in_flight -= 1

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        for method in ("GET", "PUT", "HEAD", "DELETE", "POST"):
            setattr(Handler, f"do_{method}", Handler.answer)
        return Handler

    def _answer(self, handler: BaseHTTPRequestHandler, fault: Fault | None) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        if fault in ("slow", "hangs"):
            self._ends.wait(0.5 if fault == "slow" else None)
        if fault in ("reset", "hangs"):
            handler.close_connection = True
            return
        if fault in ("409", "503 before"):
            self._send(handler, 409 if fault == "409" else 503, _CONFLICT if fault == "409" else _BUSY)
            return
        connection = self._forward(handler, body[: len(body) // 2] if fault == "part" else body)
        if fault == "part":
            connection.close()
            handler.close_connection = True
            return
        found = connection.getresponse()
        data = found.read()
        headers = [(name, value) for name, value in found.getheaders() if name.lower() not in _NOT_FORWARDED]
        length = found.getheader("content-length")
        connection.close()
        if found.status == 412 and self.ignores(handler.headers):
            self._send(handler, 200, b"", [("etag", '"0"')])
        elif fault == "503 after":
            self._send(handler, 503, _BUSY)
        elif fault == "lost":
            handler.close_connection = True
        elif fault == "truncated" and handler.command == "GET" and data:
            self._send(handler, found.status, data[: len(data) // 2], headers, length=str(len(data)))
            handler.close_connection = True
        else:
            self._send(handler, found.status, data, headers, length=length if handler.command == "HEAD" else None)

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> http.client.HTTPConnection:
        """Send the request with this body to the server, and return the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
        for name, value in handler.headers.items():
            if name.lower() not in _NOT_FORWARDED - {"content-length"}:
                connection.putheader(name, value)
        connection.endheaders(body)
        return connection

    @staticmethod
    def _send(
        handler: BaseHTTPRequestHandler,
        status: int,
        data: bytes,
        headers: list[tuple[str, str]] | None = None,
        *,
        length: str | None = None,
    ) -> None:
        handler.send_response(status)
        for name, value in headers or [("content-type", "application/xml")]:
            if name.lower() not in ("date", "server"):
                handler.send_header(name, value)
        handler.send_header("content-length", length or str(len(data)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data)
