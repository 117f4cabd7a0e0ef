"""What yoda says in a file about how it was made, and reading it back.

PNG: the text chunk ``yoda``. JPEG, WebP, TIFF, AVIF: the property ``yoda:made`` in XMP, beside
whatever the packet already says. GIF: the comment. BMP: behind the pixels, where no reader looks.
The value is one JSON object of strings.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping

from PIL import Image

from yoda_cli.files.notes import parse_notes

MARK = "yoda"
XMP_TEXT = "XML:com.adobe.xmp"  # the PNG chunk that holds a packet
NAMESPACE = "urn:yoda-cli:made:1"
PROPERTY = re.compile(rb'\s*<rdf:Description rdf:about="" xmlns:yoda="[^"]*" yoda:made="([^"]*)"/>')
ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))[0-9]')
END = b"</rdf:RDF>"
EMPTY_PACKET = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b"</rdf:RDF></x:xmpmeta>"
    b'<?xpacket end="r"?>'
)


BMP_START = b"\x00yoda:made "
BMP_BYTES = 1 << 16  # of the end of a file in which the mark is looked for


def behind_pixels(provenance: Mapping[str, str]) -> bytes:
    """The mark at the end of a BMP."""
    return BMP_START + as_json(provenance).encode()


def provenance_behind(end: bytes) -> dict[str, str] | None:
    """What the last bytes of a BMP say."""
    _, found, value = end.rpartition(BMP_START)
    return _parsed(value.decode("utf-8", "replace")) if found else None


def as_json(provenance: Mapping[str, str]) -> str:
    """The value as it stands in a file; ASCII."""
    return json.dumps(dict(provenance), sort_keys=True)


def mark_xmp(xmp: bytes, provenance: Mapping[str, str]) -> bytes:
    """An XMP packet that says what ``xmp`` says and how the picture was made.

    A packet that is not the usual UTF-8 RDF is left as it is, unmarked.
    """
    packet = xmp or EMPTY_PACKET
    before, end, after = packet.rpartition(END)
    if not end:
        return xmp
    value = html.escape(as_json(provenance)).encode()
    mine = b'<rdf:Description rdf:about="" xmlns:yoda="%s" yoda:made="%s"/>'
    return before + mine % (NAMESPACE.encode(), value) + end + after


def plain_xmp(xmp: bytes) -> bytes:
    """The packet without an earlier mark and saying orientation 1 where it says one."""
    unmarked = PROPERTY.sub(b"", xmp)
    if unmarked != xmp and unmarked == EMPTY_PACKET:
        return b""
    return ORIENTATION.sub(rb"\g<1>1", unmarked)


def provenance_in(image: Image.Image) -> dict[str, str] | None:
    """What an opened file says about how yoda made it; None if it says nothing."""
    info = image.info
    for value in (info.get(MARK), _in_xmp(info.get("xmp")), _in_comment(info.get("comment"))):
        if value is not None:
            return _parsed(str(value))
    return None


def _in_xmp(xmp: object) -> str | None:
    found = PROPERTY.search(xmp) if isinstance(xmp, bytes) else None
    return html.unescape(found[1].decode("utf-8", "replace")) if found else None


def _in_comment(comment: object) -> str | None:
    start = f"{MARK} ".encode()
    if not isinstance(comment, bytes) or not comment.startswith(start):
        return None
    return comment.removeprefix(start).decode("utf-8", "replace")


def _parsed(value: str) -> dict[str, str] | None:
    said = parse_notes(value)
    return {name: str(one) for name, one in said.items()} or None
