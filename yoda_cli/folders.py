"""Where yoda keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path

from yoda_cli.errors import WeightsError


def cache_folder() -> Path:
    """``YODA_CACHE_DIR``, or the platform's own place for caches."""
    if named := os.environ.get("YODA_CACHE_DIR"):
        return Path(named).absolute()
    import platformdirs  # here, so that training runs where it is not installed

    folder = Path(platformdirs.user_cache_dir("yoda"))
    if not folder.is_absolute():  # no home folder: "~" stays as it is
        raise WeightsError("there is no home folder; name a cache with --cache-dir")
    return folder
