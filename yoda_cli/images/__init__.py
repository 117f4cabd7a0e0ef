"""File ↔ picture: float32 RGB in [0, 1] and what the file carries beside its pixels.

Reading applies the EXIF orientation and keeps EXIF, ICC, DPI, XMP, text and comments; 16 bits stay
16 bits, grey stays grey. Writing goes to a temporary file in the same folder, then renames. Knows
no network and no model.
"""

from yoda_cli.files import shown, sweep_temporaries, write_atomically
from yoda_cli.images.formats import check_format_size, format_of, losses, output_format_for
from yoda_cli.images.frames import frames_of, scan_animation
from yoda_cli.images.header import Header, peek
from yoda_cli.images.opening import MAX_PIXELS, MAX_SIDE
from yoda_cli.images.picture import Animation, Metadata, Picture, fill_transparent
from yoda_cli.images.reading import made_by_yoda, read_picture, read_provenance
from yoda_cli.images.writing import encode_frames, encode_picture, write_frames, write_picture

__all__ = [
    "MAX_PIXELS",
    "MAX_SIDE",
    "Animation",
    "Header",
    "Metadata",
    "Picture",
    "check_format_size",
    "encode_frames",
    "encode_picture",
    "fill_transparent",
    "format_of",
    "frames_of",
    "losses",
    "made_by_yoda",
    "output_format_for",
    "peek",
    "read_picture",
    "read_provenance",
    "scan_animation",
    "shown",
    "sweep_temporaries",
    "write_atomically",
    "write_frames",
    "write_picture",
]
