"""File ↔ picture: float32 RGB in [0, 1] and what the file carries beside its pixels.

Reading applies the EXIF orientation and keeps EXIF, ICC, DPI and XMP; 16 bits stay 16 bits.
Writing goes to a temporary file in the same folder, then renames. Knows no network.
"""

from yoda_cli.images.picture import Metadata, Picture, fill_transparent
from yoda_cli.images.reading import read_picture
from yoda_cli.images.writing import (
    check_format_size,
    encode_picture,
    format_of,
    made_by_yoda,
    output_format_for,
    write_picture,
)

__all__ = [
    "Metadata",
    "Picture",
    "check_format_size",
    "encode_picture",
    "fill_transparent",
    "format_of",
    "made_by_yoda",
    "output_format_for",
    "read_picture",
    "write_picture",
]
