"""The private application of the demo: a small HTTP server. `/` says hello, `/bytes/N` sends N bytes that anyone can
make again, and every packet of them has recognisable plain text in it.

Run as `python -m wardgate.lab.demo.app [port]`.
"""

import hashlib
import os
import socketserver
import sys
from http.server import BaseHTTPRequestHandler

MARKER = b"this is plain text of the private app "
HELLO = b"hello from the private app\n"
BLOCK = 1 << 20


def block() -> bytes:
    """One mebibyte of numbered lines; the content of `/bytes/N` is this over and over, cut at N."""
    lines = b"".join(MARKER + b"%08d\n" % number for number in range(BLOCK // (len(MARKER) + 9) + 1))
    return lines[:BLOCK]


def digest(count: int) -> str:
    """The SHA-256 of the first `count` bytes of the content."""
    content = block()
    state = hashlib.sha256()
    for _ in range(count // BLOCK):
        state.update(content)
    state.update(content[: count % BLOCK])
    return state.hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers GET."""

    protocol_version = "HTTP/1.1"
    content_fd = -1

    def do_GET(self) -> None:
        """Says hello or sends bytes."""
        first, _, second = self.path.strip("/").partition("/")
        if first == "bytes" and second.isdigit():
            self._head(200, int(second))
            self._send_bytes(int(second))
        elif not first:
            self._head(200, len(HELLO))
            self.wfile.write(HELLO)
        else:
            self._head(404, 0)

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send_bytes(self, count: int) -> None:
        sent = 0
        while sent < count:
            offset = sent % BLOCK
            sent += os.sendfile(self.connection.fileno(), self.content_fd, offset, min(BLOCK - offset, count - sent))

    def log_message(self, format: str, *args: object) -> None:
        """One line a request, to standard error."""
        print(self.client_address[0], format % args, file=sys.stderr, flush=True)


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A visitor who leaves early is no error of ours."""
        print(client_address, "left:", sys.exc_info()[1], file=sys.stderr, flush=True)


def main() -> None:
    """Serves until it is ended."""
    Handler.content_fd = os.memfd_create("content")
    os.write(Handler.content_fd, block())
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 80
    with Server(("0.0.0.0", port), Handler) as server:
        print(f"listening on port {port}", file=sys.stderr, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
