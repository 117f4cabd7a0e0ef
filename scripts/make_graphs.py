#!/usr/bin/env python3
"""Write the graphs of the packaged networks anew, after their networks or weights changed.

    scripts/make_graphs.py && pytest tests/upscaling/test_runtime.py

Takes seconds. A test compares what is there with this.
"""

import sys

from yoda_cli.files import write_atomically
from yoda_cli.models.ncnn_graphs import packaged_graphs
from yoda_cli.weights.entries import PACKAGE


def main() -> None:
    """Write every file of graphs beside the weights."""
    for name, data in packaged_graphs():
        write_atomically(PACKAGE / "checkpoints" / name, data)
        sys.stdout.write(f"{name}: {len(data):,} bytes\n")


if __name__ == "__main__":
    main()
