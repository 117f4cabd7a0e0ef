"""Words of a command as a shell reads them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def plain_path(path: Path) -> str:
    """A name that no command takes for an option; a lone ``-`` stays the stream it is."""
    text = str(path)
    return f"./{text}" if text.startswith("-") and text != "-" else text


def shell_word(text: str) -> str:
    """``text`` quoted for bash, zsh and ksh; what cannot be printed as numbers of bytes."""
    if text.isprintable():
        return shlex.quote(text)
    safe = set(range(32, 127)) - set(b"'\\")
    plain = "".join(chr(b) if b in safe else f"\\x{b:02x}" for b in os.fsencode(text))
    return f"$'{plain}'"
