#!/usr/bin/env python3
"""Write the ONNX graphs of the packaged networks anew, after their networks or weights changed.

    scripts/make_graphs.py && pytest -m slow tests/models/test_packaged_graphs.py

Needs the extra ``onnx``; takes a few minutes. A slow test compares what is there with this.
"""

import sys

from yoda_cli.files import write_atomically
from yoda_cli.models.packaged_graphs import packaged_graphs
from yoda_cli.weights.entries import PACKAGE


def main() -> None:
    """Write every graph beside the weights."""
    for name, data in packaged_graphs():
        write_atomically(PACKAGE / "checkpoints" / name, data)
        sys.stdout.write(f"{name}: {len(data):,} bytes\n")


if __name__ == "__main__":
    main()
