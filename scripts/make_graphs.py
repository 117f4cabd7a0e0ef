"""Write the ONNX graphs of the packaged networks anew, after their networks or weights changed.

    scripts/make_graphs.py

Needs the extra ``onnx``; takes a few minutes. A slow test compares what is there with this.
"""

from yoda_cli.files import write_atomically
from yoda_cli.models.packaged_graphs import packaged_graphs
from yoda_cli.weights.entries import PACKAGE


def main() -> None:
    """Write every graph beside the weights."""
    for name, data in packaged_graphs().items():
        write_atomically(PACKAGE / "checkpoints" / name, data)
        print(f"{name}: {len(data):,} bytes")


if __name__ == "__main__":
    main()
