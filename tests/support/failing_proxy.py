"""An HTTP proxy in front of one server that injects faults: 500 responses, cut connections, slow responses."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.processes import HANGS


@dataclass
class Fault:
    """A fault of requests with a method and a text in their path.

    It occurs ``times`` times, after ``after`` such requests without a fault. Its kind is ``500``, ``cut`` or ``slow``.
    """

    kind: str
    method: str = "GET"
    part: str = ""
    times: int = 1
    after: int = 0


class FailingProxy:
    """A proxy that listens on a free port of its own.

    Attributes
    ----------
    faults
        The faults to inject. The first one that matches a request and isn't used up applies to it.
    seen
        Method, path and Range header of each request.
    before
        Called before a request is forwarded, with the number of requests so far, including this one.
    """

    def __init__(self, host: str, port: int) -> None:
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str, str | None]] = []
        self.before: Callable[[int], None] = lambda _: None
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.body()
                fault = proxy.next_fault(self.command, self.path, self.headers.get("Range"))
                if fault == "500":
                    self.send_response(500)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if fault == "slow":
                    time.sleep(1.5)
                there = http.client.HTTPConnection(host, port, timeout=HANGS)
                dropped = {"transfer-encoding", "expect", "content-length"}
                headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
                there.request(self.command, self.path, body, headers)
                got = there.getresponse()
                data = got.read()
                there.close()
                self.send_response(got.status)
                for name, value in got.getheaders():
                    if name.lower() not in {"connection", "transfer-encoding", "content-length", "date", "server"}:
                        self.send_header(name, value)
                length = got.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                if fault == "cut":
                    self.wfile.write(data[: len(data) // 2])
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                if self.command != "HEAD":
                    self.wfile.write(data)

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                found = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    found += self.rfile.read(size)
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    """Lines after the last chunk."""
                return found

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Log nothing."""

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (OSError, ValueError):
                    self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """The proxy's URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def next_fault(self, method: str, path: str, range_: str | None) -> str | None:
        """Record a request and return the kind of its fault, or None."""
        with self._lock:
            self.seen.append((method, path, range_))
            self.before(len(self.seen))
            for fault in self.faults:
                if fault.method == method and fault.part in path and fault.times:
                    if fault.after:
                        fault.after -= 1
                        return None
                    fault.times -= 1
                    return fault.kind
        return None

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()
