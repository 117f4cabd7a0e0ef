"""What reading or writing ends with where a process may have few addresses more than it has.

``python scarce.py read|write FOLDER``: a line for every file in FOLDER, or for every format, and
every limit: its name, megabytes, and what happened.
"""

import io
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path

from yoda_cli.errors import YodaError
from yoda_cli.images import encode_picture, peek, read_picture
from yoda_cli.images.frames import AnimationHeader, frames_of, scan_animation
from yoda_cli.images.writing import write_frames

MEGABYTES = (0, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64, 400)
WRITTEN = ("PNG", "JPEG", "WEBP", "lossless WEBP", "TIFF", "BMP", "GIF", "AVIF")


def addresses():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def outcome(work, megabytes):
    """``work()`` in a child that may have so many megabytes more: what it raised."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries say what they could not have
        most = addresses() + int(megabytes * (1 << 20))
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        try:
            work()
            said = "done"
        except MemoryError:
            said = "MemoryError"
        except YodaError as error:
            said = f"{type(error).__name__} {error}"
        except BaseException as error:
            said = repr(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    _, status = os.waitpid(child, 0)
    return said or f"died of {status}"


def read(path):
    if peek(path).frames > 1:
        scan_animation(path)
        for _ in frames_of(path, plain=True):
            pass
    else:
        read_picture(path, plain=True)


def writing(picture, kind):
    picture = replace(picture, metadata=replace(picture.metadata, is_lossless="less" in kind))
    kind = kind.removeprefix("lossless ").removeprefix("animated ")
    return lambda: encode_picture(picture, kind=kind)


def animating(picture, kind):
    header = AnimationHeader((40.0, 40.0), 0, has_alpha=False, is_grey=False)
    return lambda: write_frames(io.BytesIO(), iter([picture, picture]), header, kind=kind)


def main():
    files = sorted(Path(sys.argv[2]).iterdir())
    if sys.argv[1] == "read":
        works = {path.name: lambda path=path: read(path) for path in files}
    else:
        picture = read_picture(files[0], plain=True)
        works = {kind: writing(picture, kind) for kind in WRITTEN}
        works |= {f"animated {k}": animating(picture, k) for k in ("PNG", "WEBP", "GIF", "AVIF")}
    for name, work in works.items():
        for megabytes in MEGABYTES:
            sys.stdout.write(f"{name}\t{megabytes}\t{outcome(work, megabytes)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
