"""A local HTTP server that misbehaves on order: each request is answered by the next script."""

import gzip
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server serves, how it misbehaves next, and what it was asked."""

    body: bytes
    etag: str = '"v1"'
    script: list = field(default_factory=list)  # one behaviour a request; then honest
    requests: list = field(default_factory=list)  # (path, headers)
    sent: int = 0
    pace: float = 0.0  # seconds between chunks of an honest body
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self):
        with self.lock:
            return self.script.pop(0) if self.script else honest

    @property
    def full_downloads(self):
        return sum("Range" not in headers for _, headers in self.requests)


def send(handler, status, body, **headers):
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        if value is not None:
            handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    write(handler, body)


def write(handler, body):
    site = handler.server.site
    for at in range(0, len(body), 1 << 14):
        handler.wfile.write(body[at : at + (1 << 14)])
        site.sent += len(body[at : at + (1 << 14)])
        if site.pace:
            time.sleep(site.pace)


def honest(handler):
    """Ranges, If-Range and ETag as they should be."""
    site, asked = handler.server.site, handler.headers.get("Range")
    if asked and handler.headers.get("If-Range", site.etag) == site.etag:
        start = int(asked.removeprefix("bytes=").split("-")[0])
        whole = len(site.body)
        if start >= whole:
            return send(handler, 416, b"", Content_Range=f"bytes */{whole}")
        span = f"bytes {start}-{whole - 1}/{whole}"
        return send(handler, 206, site.body[start:], Content_Range=span, ETag=site.etag)
    return send(handler, 200, site.body, ETag=site.etag)


def cut(at):
    """The connection ends after ``at`` bytes of what was asked for."""

    def behave(handler):
        site, asked = handler.server.site, handler.headers.get("Range", "bytes=0-")
        start = int(asked.removeprefix("bytes=").split("-")[0])
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(site.body) - start))
        if start:
            last = len(site.body) - 1
            handler.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        handler.send_header("ETag", site.etag)
        handler.end_headers()
        write(handler, site.body[start : start + at])
        handler.close_connection = True

    return behave


def status(code, **headers):
    return lambda handler: send(handler, code, b"no", **headers)


def redirect(location):
    return lambda handler: send(handler, 302, b"", Location=location)


def ignore_range(handler):
    site = handler.server.site
    send(handler, 200, site.body, ETag=site.etag)


def other_etag_206(handler):
    """A 206 of another version: a server that does not understand If-Range."""
    site = handler.server.site
    start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
    span = f"bytes {start}-{len(site.body) - 1}/{len(site.body)}"
    send(handler, 206, site.body[start:], Content_Range=span, ETag='"other"')


def stall(seconds):
    def behave(handler):
        site = handler.server.site
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(site.body)))
        handler.send_header("ETag", site.etag)
        handler.end_headers()
        handler.wfile.write(site.body[: len(site.body) // 3])
        handler.wfile.flush()
        time.sleep(seconds)
        handler.close_connection = True

    return behave


def gzipped(handler):
    send(handler, 200, gzip.compress(handler.server.site.body), Content_Encoding="gzip")


def wrong_bytes(handler):
    body = bytearray(handler.server.site.body)
    body[len(body) // 2] ^= 1
    send(handler, 200, bytes(body), ETag=handler.server.site.etag)


def wrong_length(handler):
    send(handler, 200, handler.server.site.body[:-7], ETag=handler.server.site.etag)


def unframed_cut(handler):
    """Neither length nor chunks: the end of the connection is the end of the file."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    write(handler, handler.server.site.body[:1000])
    handler.close_connection = True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        site = self.server.site
        with site.lock:
            site.requests.append((self.path, dict(self.headers)))
        try:
            site.next()(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *args): ...


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address): ...


@contextmanager
def serving(body, **settings):
    """A ``Site`` at ``site.url``, until the block ends."""
    server = Server(("127.0.0.1", 0), Handler)
    server.site = Site(body, **settings)
    server.site.url = f"http://127.0.0.1:{server.server_address[1]}/file.bin"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
