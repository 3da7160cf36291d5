"""What does a picture's header say: format, size and orientation, before anything is decoded?"""

from typing import NamedTuple

_EXIF_ORIENTATION = 0x0112
_EXIF_INTEGERS = {3: 2, 4: 4}  # field type -> bytes: SHORT as the standard says, LONG as some cameras write

_BMP_HEADERS = frozenset((12, 16, 40, 52, 56, 64, 108, 124))  # sizes of the versions of its second header

_JPEG_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length: TEM, RSTn, SOI
_JPEG_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOFn; the three are DHT, JPG and DAC
_JPEG_APP1, _JPEG_SCAN = 0xE1, 0xDA


class JpegHeader(NamedTuple):
    """What a JPEG says about itself before its first scan.

    Attributes:
        width, height: in pixels, as stored (before orientation).
        components: 1 grey, 3 colour, 4 CMYK or YCCK.
        orientation: EXIF orientation 1 to 8; 1 where missing or broken.
    """

    width: int
    height: int
    components: int
    orientation: int


def format_of(head: bytes) -> str | None:
    """Name the format of a picture file by its first bytes.

    The list is closed on purpose: Pillow's rarer plugins run other programs or were never meant for hostile files.

    Args:
        head: the first bytes of the file; 64 are enough, more do no harm.

    Returns:
        "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", or None for anything else.
    """
    if head.startswith(b"\xff\xd8"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):  # + is BigTIFF
        return "TIFF"
    if (
        head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"
    ):  # two letters alone would take in texts; these bytes are reserved
        return "BMP"
    if head[4:8] == b"ftyp":
        return _format_of_brands(head[8 : min(int.from_bytes(head[:4], "big"), 256)])
    return None


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Read size, components and orientation of a JPEG; some 5 us, where Pillow takes 18.

    Args:
        data: the whole file.

    Returns:
        The header, or None where the data ends (or the first scan begins) before any frame header.
    """
    orientation, end, at = 1, len(data), 2
    while True:
        at = data.find(b"\xff", at)  # what stands between segments is junk that decoders skip, too
        if at < 0 or at + 4 > end:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _JPEG_STANDALONE or marker == 0:
            at += 2
        elif marker in _JPEG_FRAME:
            if at + 10 > end:
                return None
            height, width = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            return JpegHeader(width, height, data[at + 9], orientation)
        elif marker == _JPEG_SCAN:
            return None
        else:
            length = int.from_bytes(data[at + 2 : at + 4])
            if marker == _JPEG_APP1 and orientation == 1 and data[at + 4 : at + 10] == b"Exif\0\0":
                orientation = exif_orientation(data[at + 4 : at + 2 + length])
            at += 2 + max(length, 2)


def exif_orientation(exif: bytes) -> int:
    """Read the orientation from an EXIF block, with or without its "Exif" prefix.

    Returns:
        1 to 8; 1 where the tag is missing, broken or out of range.
    """
    tiff = exif[6:] if exif.startswith(b"Exif\0\0") else exif
    if tiff[:2] == b"II":
        return _orientation_in_directory(tiff, "little")
    return _orientation_in_directory(tiff, "big") if tiff[:2] == b"MM" else 1


def _orientation_in_directory(tiff: bytes, order: str) -> int:
    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], "little" if order == "little" else "big")

    first = number(4, 4) + 2
    entries = min(number(first - 2, 2), max(len(tiff) - first, 0) // 12)  # a count that lies must not cost time
    for at in range(first, first + 12 * entries, 12):
        if number(at, 2) == _EXIF_ORIENTATION:
            value = number(at + 8, _EXIF_INTEGERS.get(number(at + 2, 2), 0))
            return value if 1 <= value <= 8 else 1
    return 1


def _format_of_brands(brands: bytes) -> str | None:
    """Tell AVIF, HEIF and videos apart: all are ISO media files, which list their brands four letters each."""
    names = {brands[at : at + 4] for at in (0, *range(8, len(brands), 4))}  # 4 to 8 is a version number
    if names & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIF" if names & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"} else None
