"""The entries of the registry, and what would make one contradict itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yoda_cli.errors import WeightsError
from yoda_cli.files.paths import is_file
from yoda_cli.weights.network import is_http

PACKAGE = Path(__file__).parent.parent
FORMATS = ("safetensors", "pth", "onnx", "zip")


@dataclass(frozen=True)
class FileEntry:
    """One file that can be downloaded (``urls``) or that a person brings (``manual``).

    ``origin`` is the registry file that names it, empty for the packaged one.
    """

    name: str
    format: str
    licence: str
    source: str
    summary: str = ""
    urls: tuple[str, ...] = ()
    manual: str = ""
    bytes: int | None = None
    sha256: str = ""
    sha256_prefix: str = ""
    md5_prefix: str = ""
    structure: tuple[str, ...] = ()
    also_named: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    noncommercial: bool = False
    origin: str = ""


@dataclass(frozen=True)
class ModelEntry:
    """One model: bundled with the package, or made of files, each with its role."""

    name: str
    summary: str
    backbone: str
    scale: int
    licence: str
    source: str
    trained_with_yoda: bool
    use: str = ""
    bundled: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    noncommercial: bool = False
    attention: str = "learned"
    lower_bound: float = 0.3
    steps: int = 15
    sampler: str = "ddim"
    settings: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""

    @property
    def path(self) -> Path:
        """The bundled checkpoint on disk."""
        path = PACKAGE / "checkpoints" / self.bundled
        if not self.bundled or not is_file(path):
            raise WeightsError(f"{path} is missing: this installation is incomplete")
        return path


@dataclass(frozen=True)
class DatasetEntry:
    """One data set: archives with the folders of its HR and LR pictures, or a manual way."""

    name: str
    summary: str
    licence: str
    source: str
    files: tuple[str, ...] = ()
    hr: str = ""
    lr: str = ""
    scale: int | None = None
    manual: str = ""
    noncommercial: bool = False
    origin: str = ""


def contradictions(entry: FileEntry) -> list[tuple[str, str]]:
    """(key, what is wrong with it) of a file's entry."""
    wrong = []
    if entry.format not in FORMATS:
        wrong.append(("format", f"{entry.format!r} is not one of {', '.join(FORMATS)}"))
    if not entry.urls and not entry.manual:
        wrong.append(("urls", "a file needs urls, or manual"))
    for key, digits in (("sha256", 64), ("sha256_prefix", None), ("md5_prefix", None)):
        value = getattr(entry, key)
        if value and (not re.fullmatch("[0-9a-f]+", value) or len(value) != (digits or len(value))):
            wrong.append((key, f"{value!r} is not lower-case hexadecimal of the right length"))
    if entry.bytes is not None and entry.bytes < 1:
        wrong.append(("bytes", f"{entry.bytes} is not a size"))
    wrong += [("urls", what) for url in entry.urls if (what := unsafe(url, entry))]
    return wrong


def unsafe(url: str, entry: FileEntry) -> str:
    """Why an address may not be used; empty if it may."""
    if not is_http(url):
        return f"{url!r} is not an http(s) address"
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme == "http" and not entry.sha256 and not local:
        return f"{url!r} is not encrypted, and no sha256 vouches for the bytes"
    return ""
