"""Opening an address: redirects followed by hand, tokens kept to their host, nothing offline.

A redirect may not leave https, and may not lead to a private address of another host. Proxies and
certificates are those ``requests`` takes from the environment.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from yoda_cli.errors import UsageError, WeightsError
from yoda_cli.files import read_small

if TYPE_CHECKING:
    import requests

HUB = "https://huggingface.co"
MAX_REDIRECTS = 8
REDIRECTS = (301, 302, 303, 307, 308)
DAY = 86_400  # seconds
FALSE = ("", "0", "false", "no", "off")


TOKEN = re.compile("[!-~]+")  # what a header may carry


class RefusedError(WeightsError):
    """An address or an answer that may not be used; trying again would not help."""


class SlowError(WeightsError):
    """A server that answers, but too slowly; what came is kept."""


@dataclass(frozen=True)
class Limits:
    """How long a download may take to fail. Seconds, unless named otherwise.

    An address is given up that brings less than ``slow_bytes_per_second`` for ``slow_after``
    seconds, however it spreads them; so is one whose headers take longer than that.
    """

    connect: float = 10.0
    read: float = 20.0
    attempts: int = 4
    pause: float = 0.5
    longest_pause: float = 20.0
    slow_bytes_per_second: float = 1000.0
    slow_after: float = 60.0

    @staticmethod
    def asked() -> Limits:
        """With ``YODA_SLOW_SECONDS`` as ``slow_after``; UsageError where that is no such number."""
        text = os.environ.get("YODA_SLOW_SECONDS", "").strip()
        if not text:
            return Limits()
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= DAY:
            raise UsageError(f"YODA_SLOW_SECONDS={text!r}: give seconds, above 0 and up to {DAY:,}")
        return Limits(slow_after=seconds)


def is_offline() -> bool:
    """``YODA_OFFLINE`` (``--offline``) or ``HF_HUB_OFFLINE`` is set."""
    return any(
        os.environ.get(name, "").strip().lower() not in FALSE
        for name in ("YODA_OFFLINE", "HF_HUB_OFFLINE")
    )


def endpoint(url: str) -> str:
    """``url`` on the Hugging Face mirror that ``HF_ENDPOINT`` names, if it is one of theirs."""
    mirror = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    return mirror + url.removeprefix(HUB) if mirror and url.startswith(HUB + "/") else url


def token_for(url: str) -> str:
    """The Hugging Face token, for their host and for no other; empty without one.

    Raises ``WeightsError`` for a token that no header can carry.
    """
    hub = os.environ.get("HF_ENDPOINT") or HUB
    if not is_http(hub):
        raise WeightsError(f"HF_ENDPOINT {hub!r} is not an http(s) address")
    if [urlsplit(url).scheme, urlsplit(url).netloc] != [urlsplit(hub).scheme, urlsplit(hub).netloc]:
        return ""
    named, token = "HF_TOKEN", os.environ.get("HF_TOKEN", "").strip()
    if not token:
        home = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")  # noqa: PTH111
        path = Path(home, "token")
        named = str(path)
        try:
            token = read_small(path).strip()
        except (OSError, UnicodeDecodeError):
            return ""
    if token and not TOKEN.fullmatch(token):
        raise WeightsError(f"{named} holds a character that no token has")
    return token


def is_http(url: str) -> bool:
    """Whether an address is one of the web: scheme, host and port can be told."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # http://[
        return False


def new_session() -> requests.Session:
    """A session that leaves redirects to ``open_url``.

    ``requests`` reads their addresses even where it does not follow them, and leaves the connection
    open where it cannot.
    """
    import requests

    session = requests.Session()
    session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]
    return session


def open_url(
    session: requests.Session, url: str, headers: Mapping[str, str], limits: Limits
) -> requests.Response:
    """The answer at the end of the redirects, its body not read yet; any status but those.

    Raises ``RefusedError`` for a redirect that may not be followed, ``requests``' errors for the
    rest.
    """
    if is_offline():
        raise RefusedError(f"offline: {url} was not asked for")
    first = url = endpoint(url)
    if not is_http(url):
        raise RefusedError(f"{url!r} is not an http(s) address")
    for _ in range(MAX_REDIRECTS):
        answer = ask(session, url, headers, limits)
        if answer.status_code not in REDIRECTS or "Location" not in answer.headers:
            return answer
        answer.close()
        try:
            following = urljoin(url, answer.headers["Location"])
        except ValueError:
            following = answer.headers["Location"]
        if what := refusal(first, url, following):
            raise RefusedError(f"{first} leads to {following!r}: {what}")
        url = following
    raise RefusedError(f"{first} leads in a circle (more than {MAX_REDIRECTS} redirects)")


def ask(
    session: requests.Session, url: str, headers: Mapping[str, str], limits: Limits
) -> requests.Response:
    """One answer, its body not read yet; headers that drip in are given up like a slow body."""
    import requests

    token = token_for(url)
    extra = {"Authorization": f"Bearer {token}"} if token else {}

    def get() -> requests.Response:
        return session.get(
            url,
            headers={"Accept-Encoding": "identity", **headers, **extra},
            stream=True,
            allow_redirects=False,
            timeout=(limits.connect, limits.read),
        )

    try:
        return within(limits.connect + limits.slow_after, get)
    except requests.RequestException:
        raise
    except ValueError as error:  # a name that no resolver takes
        raise RefusedError(f"{url!r} is not an http(s) address") from error


def within(seconds: float, get: Callable[[], requests.Response]) -> requests.Response:
    """What ``get`` returns or raises; ``SlowError`` if it takes too long.

    ``requests`` bounds the pauses of an answer and not its length, so another thread waits for it.
    """
    found: SimpleQueue[requests.Response | Exception] = SimpleQueue()

    def wait() -> None:
        try:
            found.put(get())
        except Exception as error:  # whatever it is, it is raised where it is waited for
            found.put(error)

    threading.Thread(target=wait, daemon=True, name="waits for a server").start()
    try:
        answer = found.get(timeout=seconds)
    except Empty:
        raise SlowError(f"no answer in {seconds:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def refusal(first: str, here: str, there: str) -> str:
    """Why a redirect may not be followed; empty if it may."""
    if not is_http(there):
        return "not an http(s) address"
    parts = urlsplit(there)
    if urlsplit(here).scheme == "https" and parts.scheme == "http":
        return "it would leave the encrypted connection"
    if parts.hostname != urlsplit(first).hostname and is_private(parts.hostname or ""):
        return "a private address"
    return ""


def is_private(host: str) -> bool:
    """Whether a host is, or resolves to, an address that is not on the public internet.

    A name that does not resolve is left to the connection (a proxy may know it).
    """
    try:
        found = [ipaddress.ip_address(host)]
    except ValueError:
        try:
            answers = socket.getaddrinfo(host, None)
        except (OSError, UnicodeError):
            return False
        found = [ipaddress.ip_address(str(a[4][0]).split("%")[0]) for a in answers]
    return any(not address.is_global for address in found)
