"""A web server on this machine for tests of downloads."""

import contextlib
import http.server
import threading
from collections.abc import Iterator


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` under any path but /missing.

    breaks: after how many bytes each of the next answers ends. asked: Range and If-Range of every request. etag: None
    sends none. ranges: whether a part is given where one is asked for.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.etag, self.ranges = content, '"one"', True
        self.breaks: list[int] = []
        self.asked: list[tuple[str | None, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/weights.bin"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((wanted, self.headers.get("If-Range")))
        if self.path == "/missing":
            return self.send_error(404)
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if self.headers.get("If-Range") not in (None, server.etag):
            begin = 0
        if begin >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(server.content) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(server.content) - 1}/{len(server.content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        end = server.breaks.pop(0) if server.breaks else len(server.content)
        self.wfile.write(server.content[begin : begin + end])
        return None

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(content: bytes) -> Iterator[Server]:
    """A server of `content` in a thread of its own; `url` is the address."""
    with Server(content) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
