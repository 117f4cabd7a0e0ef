"""onnxruntime, which finds faces and checks exported graphs: the one door to it."""

from __future__ import annotations

import os
from typing import Any

EXTRA = "onnx"  # of the installation
RUNTIME = "onnxruntime"


def runtime() -> Any:
    """The module onnxruntime, which every other imports through here.

    Its packages for Linux and macOS send their maker what runs, under a number that they keep in
    the user's cache. Nothing is uploaded by yoda, nor by what it runs on, unless a person set
    ``ORT_DISABLE_TELEMETRY`` to 0; it is read once, by the first import.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
