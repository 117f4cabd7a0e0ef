"""Servers that want time, memory or a wrong file to be kept; answers made by chance."""

import random
import time

import faults

#: What a header may be filled with, by its name.
HEADERS = {
    "Content-Length": ["{whole}", "0", "1", "-1", "{half}", "9" * 30, "9" * 5000, "x", "", "5, 6",
                       "²", "0x10", "1e3", "+5", " 7"],
    "Content-Range": ["bytes {half}-{last}/{whole}", "bytes 0-{last}/{whole}", "bytes */{half}",
                      "bytes */{whole}", "bytes {half}-{half}/{half}", "bytes {half}-{last}/*",
                      "bytes {half}-0/{whole}", "bytes -5-9/3", "pages 1-2/3", "bytes", "",
                      "bytes {half}-{last}/1", "bytes " + "9" * 5000 + "-1/2"],
    "ETag": ['"v1"', 'W/"v1"', '"v2"', "v1", '"', '"\xe9"', '"' + "x" * 3000 + '"', ""],
    "Content-Encoding": ["gzip", "deflate", "br", "identity", "x", "gzip, gzip, gzip"],
    "Transfer-Encoding": ["chunked", "gzip, chunked", "x"],
    "Location": ["/file.bin", "http://[", "//", "", "file:///etc/passwd", "http://169.254.169.254/",
                 "http://h:99999/", "http://" + "a" * 300 + "/", "http://\xe9/", "?", "#", "\x01",
                 "https://user:word@127.0.0.1:1/", "gopher://x/", "http:file.bin"],
    "Retry-After": ["0", "1000", "-5", "9" * 400, "Fri, 31 Dec 1999 23:59:59 GMT", "1e9", "nan"],
    "Connection": ["close", "keep-alive", "upgrade"],
    "Set-Cookie": ["a=b", "a=" + "b" * 5000, ";;;"],
    "Content-Type": ["text/html; charset=nothing", "\xff"],
}  # fmt: skip
STATUS = ["200 OK"] * 6 + ["206 Part"] * 6 + ["416 No"] * 4 + [
    "204 None", "304 Same", "301 Moved", "302 Found", "308 Moved", "100 Go on", "404 No", "401 No",
    "429 Wait", "500 No", "503 Wait", "999 What", "99 Low", "0 Zero", "-1 Less", "abc", "",
]  # fmt: skip
LINES = [b"no colon\r\n", b": nothing\r\n", b"A: b\r\n folded: x\r\n", b"N: \x00\r\n",
         b"X: " + b"y" * 70_000 + b"\r\n", b"Z: z\r\n" * 150, b"\r\n", b"\xff\xfe\r\n"]  # fmt: skip


def ask_of(handler):
    """The first byte that is asked for."""
    return int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])


def by_chance(chance: random.Random, *, honest_wholes: bool):
    """One answer of any kind; with ``honest_wholes`` a 200 says the truth, or is cut."""
    status = chance.choice(STATUS)
    names = chance.sample(list(HEADERS), chance.randint(0, 5))
    filled = [(name, chance.choice(HEADERS[name])) for name in names]
    extra = chance.choice(LINES) if chance.random() < 0.15 else b""
    body_kind, at = chance.randrange(6), chance.random()
    if honest_wholes and status.startswith("200"):
        return faults.cut(int(at * 3000))

    def behave(handler):
        whole = handler.server.site.body
        facts = {"whole": len(whole), "half": len(whole) // 2, "last": len(whole) - 1}
        facts["half"] = ask_of(handler) or facts["half"]
        head = f"HTTP/1.1 {status}\r\n"
        head += "".join(f"{name}: {value.format(**facts)}\r\n" for name, value in filled)
        rest = whole[ask_of(handler) :] if status.startswith("206") else whole
        bodies = {
            0: rest,
            1: rest[: int(at * len(rest))],
            2: rest + b"more" * 10,
            3: b"%x\r\n" % len(rest) + rest + b"\r\n0\r\n\r\n",
            4: b"ffffffffff\r\n" + rest,
            5: bytes(random.Random(at).randrange(256) for _ in range(200)),
        }
        handler.wfile.write(head.encode("latin-1") + extra + b"\r\n" + bodies[body_kind])
        handler.close_connection = True

    return behave


def drip(pause, *, first=0, chunked=False):
    """``first`` bytes at once, then one byte at a time, for as long as anybody listens."""

    def behave(handler):
        whole = handler.server.site.body[ask_of(handler) :]
        handler.send_response(200)
        length = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", len(whole))
        handler.send_header(length[0], str(length[1]))
        handler.send_header("ETag", handler.server.site.etag)
        handler.end_headers()
        handler.wfile.write(whole[:first])
        for at in range(first, len(whole)):
            byte = whole[at : at + 1]
            handler.wfile.write(b"1\r\n" + byte + b"\r\n" if chunked else byte)
            time.sleep(pause)

    return behave


def drip_headers(pause):
    """A header that never ends, one letter at a time."""

    def behave(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(2000):
            handler.wfile.write(b"x")
            time.sleep(pause)

    return behave
