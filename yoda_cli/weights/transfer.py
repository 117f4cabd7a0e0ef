"""Requests until a body is whole: resumed, retried with growing pauses, bounded in time."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yoda_cli.errors import WeightsError
from yoda_cli.files.paths import is_there
from yoda_cli.weights.entries import FileEntry
from yoda_cli.weights.network import Limits, RefusedError, SlowError, open_url
from yoda_cli.weights.partial import CHUNK, ETAG, Partial

if TYPE_CHECKING:
    import requests

SPARE_BYTES = 64 << 20  # that a download leaves free on the disk, for everybody else
MAX_UNKNOWN_BYTES = 16 << 30  # of a body whose length nobody states
MAX_TRIES = 60  # in all, also of those that brought something
PROGRESS_BYTES = 4096  # a try that brought fewer brought nothing
AGAIN = (408, 425, 429, 500, 502, 503, 504)
SPAN = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")  # of a Content-Range
LENGTH = re.compile(r"\d{1,18}")


@dataclass
class Watch:
    """What a caller is told: notices as lines, progress as (done, total or None) bytes."""

    say: Callable[[str], None] = lambda line: None
    progress: Callable[[int, int | None], None] = lambda done, total: None


def stream(
    session: requests.Session, entry: FileEntry, url: str, partial: Partial,
    limits: Limits, watch: Watch,
) -> None:  # fmt: skip
    """Fill ``partial`` with the whole body, trying again where that may help."""
    import requests
    import urllib3

    failures, what = 0, ""
    for _ in range(MAX_TRIES):
        before, pause = partial.done, limits.pause * 2**failures
        try:
            retry = once(session, entry, url, partial, limits, watch)
            if retry is None:
                return
            what, asked = retry
            pause = max(pause, asked)
            helped = partial.done - before > PROGRESS_BYTES
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            what = reason(error)
            silence = (requests.Timeout, urllib3.exceptions.TimeoutError)
            is_cut = not isinstance(error, silence)  # slowness is not progress
            helped = is_cut and partial.done - before > PROGRESS_BYTES
        failures = 0 if helped else failures + 1
        if failures >= limits.attempts:
            break
        pause = min(pause, limits.longest_pause)
        watch.say(f"{entry.name}: {what}; again in {pause:.1f} s")
        time.sleep(pause)
    raise WeightsError(f"{url}: {what}, again and again")


def once(
    session: requests.Session, entry: FileEntry, url: str, partial: Partial,
    limits: Limits, watch: Watch,
) -> tuple[str, float] | None:  # fmt: skip
    """One request. None when the body is whole, else what went wrong and the pause asked for."""
    if not partial.etag and not entry.sha256:  # nothing would tell another file from this one
        partial.restart()
    wanted = partial.done
    headers = {"Range": f"bytes={wanted}-"} if wanted else {}
    if wanted and partial.etag:
        headers["If-Range"] = partial.etag
    with open_url(session, url, headers, limits) as answer:
        status = answer.status_code
        if status == 416:
            said_whole = answer.headers.get("Content-Range") == f"bytes */{wanted}"
            total = partial.total or entry.bytes  # without it half a file might be pinned
            if wanted and said_whole and (wanted == total or (total is None and entry.sha256)):
                partial.framed = True
                return None
            partial.restart()
            return "the server does not have that range", 0.0
        if status in AGAIN:
            return f"the server answered {status}", retry_after(answer)
        if status not in (200, 206):
            raise RefusedError(f"{url}: the server answered {status}")
        if status == 206 and not continues(answer, partial):
            partial.restart()
            return "the server sent another part than was asked for", 0.0
        if status == 200:
            partial.restart()
        partial.url, partial.etag = url, strong_etag(answer)
        partial.total = partial.total or announced(answer)  # of a 206 that of the first answer
        partial.framed = is_framed(answer) and (status == 200 or partial.total is not None)
        check_room(entry, partial)
        receive(answer, entry, partial, limits, watch)
    if partial.total is not None and partial.done != partial.total:
        return f"{partial.done:,} of {partial.total:,} bytes came", 0.0
    return None


def continues(answer: requests.Response, partial: Partial) -> bool:
    """Whether a 206 is the rest of what is there: same start, size and ETag, not compressed."""
    span = SPAN.fullmatch(answer.headers.get("Content-Range", ""))
    return (
        span is not None
        and 0 < partial.done == int(span[1]) <= int(span[2])
        and (span[3] == "*" or int(span[2]) < int(span[3]) == (partial.total or int(span[3])))
        and answer.headers.get("ETag", partial.etag) == partial.etag
        and "Content-Encoding" not in answer.headers
    )


def strong_etag(answer: requests.Response) -> str:
    """The ETag that names these very bytes; empty for a weak one or a compressed body."""
    etag = answer.headers.get("ETag", "")
    return etag if ETAG.fullmatch(etag) and "Content-Encoding" not in answer.headers else ""


def is_framed(answer: requests.Response) -> bool:
    """Whether a body that was cut would be noticed: its length or its chunks are announced."""
    chunked = "chunked" in answer.headers.get("Transfer-Encoding", "").lower()
    return chunked or LENGTH.fullmatch(answer.headers.get("Content-Length", "")) is not None


def announced(answer: requests.Response) -> int | None:
    """The size of the whole file by the answer's own words; None if it is not said."""
    if answer.status_code == 206:
        span = SPAN.fullmatch(answer.headers.get("Content-Range", ""))
        return int(span[3]) if span and span[3] != "*" else None
    length = answer.headers.get("Content-Length", "")
    is_plain = answer.headers.get("Content-Encoding", "identity") == "identity"
    return int(length) if is_plain and LENGTH.fullmatch(length) else None


def check_room(entry: FileEntry, partial: Partial) -> None:
    """Refuse a body of another size than the registry's, or one the disk has no room for."""
    total = partial.total
    if total is not None and entry.bytes is not None and total != entry.bytes:
        raise RefusedError(f"the server offers {total:,} bytes, not {entry.bytes:,}")
    missing = (total or entry.bytes or 0) - partial.done
    free = shutil.disk_usage(partial.path.parent).free
    if missing + SPARE_BYTES > free:
        raise WeightsError(
            f"{entry.name} needs {missing / 1e6:,.0f} MB and {partial.path.parent.parent} has "
            f"{free / 1e6:,.0f} MB free; name another folder with --cache-dir"
        )


def receive(
    answer: requests.Response, entry: FileEntry, partial: Partial, limits: Limits, watch: Watch
) -> None:
    """Append the body to the partial file as it comes; too much, or too slow for too long, ends it.

    Raises ``SlowError`` where ``limits`` say so; what came is kept for the next time.
    """
    measured, since = partial.done, time.monotonic()
    most = partial.total or entry.bytes
    with partial.path.open("ab") as file:
        try:
            while chunk := answer.raw.read1(CHUNK, decode_content=True):
                partial.write(file, chunk)
                watch.progress(partial.done, most)
                check_length(partial, most)
                if partial.synced == partial.done:  # just written through: look at the disk too
                    check_room(entry, partial)
                now = time.monotonic()
                if now - since > limits.slow_after:
                    if (partial.done - measured) / (now - since) < limits.slow_bytes_per_second:
                        slow = f"less than {limits.slow_bytes_per_second:g} bytes a second"
                        raise SlowError(f"{partial.url}: too slow: {slow}")
                    measured, since = partial.done, now
        finally:
            if is_there(partial.path):
                partial.sync(file)


def check_length(partial: Partial, most: int | None) -> None:
    """Refuse a body that is longer than it may be."""
    allowed = MAX_UNKNOWN_BYTES if most is None else most
    if partial.done > allowed:
        partial.restart()
        raise RefusedError(f"{partial.url}: more than {allowed:,} bytes came")


def retry_after(answer: requests.Response) -> float:
    """The seconds a server asks to wait for; 0 if it names none."""
    value = answer.headers.get("Retry-After", "")
    return float(value) if LENGTH.fullmatch(value) else 0.0


def reason(error: Exception) -> str:
    """What a failed request means, in a few words."""
    import requests
    import urllib3

    if isinstance(error, requests.exceptions.SSLError):
        return "the certificate could not be verified"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy did not answer"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return "the server was silent for too long"
    if isinstance(error, (urllib3.exceptions.ProtocolError, urllib3.exceptions.IncompleteRead)):
        return "the connection was cut"
    if isinstance(error, requests.ConnectionError):
        return "silent for too long" if "timed out" in str(error) else "no connection"
    return f"the answer could not be read ({type(error).__name__})"
