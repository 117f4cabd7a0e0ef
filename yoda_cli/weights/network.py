"""Opening an address: redirects followed by hand, tokens kept to their host, nothing offline.

A redirect may not leave https, and may not lead to a private address of another host. Proxies and
certificates are those ``requests`` takes from the environment.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from yoda_cli.errors import WeightsError

if TYPE_CHECKING:
    import requests

HUB = "https://huggingface.co"
MAX_REDIRECTS = 8
REDIRECTS = (301, 302, 303, 307, 308)
FALSE = ("", "0", "false", "no", "off")


class RefusedError(WeightsError):
    """An address or an answer that may not be used; trying again would not help."""


@dataclass(frozen=True)
class Limits:
    """How long a download may take to fail. Seconds, unless named otherwise."""

    connect: float = 10.0
    read: float = 20.0
    attempts: int = 4
    pause: float = 0.5
    longest_pause: float = 20.0
    slow_bytes_per_second: float = 500.0
    slow_after: float = 30.0


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
    """The Hugging Face token, for their host and for no other; empty without one."""
    hub = urlsplit(os.environ.get("HF_ENDPOINT") or HUB)
    parts = urlsplit(url)
    if (parts.scheme, parts.netloc) != (hub.scheme, hub.netloc):
        return ""
    if os.environ.get("HF_TOKEN"):
        return os.environ["HF_TOKEN"].strip()
    home = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")  # noqa: PTH111
    try:
        return Path(home, "token").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


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
    for _ in range(MAX_REDIRECTS):
        token = token_for(url)
        extra = {"Authorization": f"Bearer {token}"} if token else {}
        answer = session.get(
            url,
            headers={"Accept-Encoding": "identity", **headers, **extra},
            stream=True,
            allow_redirects=False,
            timeout=(limits.connect, limits.read),
        )
        if answer.status_code not in REDIRECTS or "Location" not in answer.headers:
            return answer
        answer.close()
        following = urljoin(url, answer.headers["Location"])
        if what := refusal(first, url, following):
            raise RefusedError(f"{first} leads to {following}: {what}")
        url = following
    raise RefusedError(f"{first} leads in a circle (more than {MAX_REDIRECTS} redirects)")


def refusal(first: str, here: str, there: str) -> str:
    """Why a redirect may not be followed; empty if it may."""
    parts = urlsplit(there)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "not an http(s) address"
    if urlsplit(here).scheme == "https" and parts.scheme == "http":
        return "it would leave the encrypted connection"
    if parts.hostname != urlsplit(first).hostname and is_private(parts.hostname):
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
