"""What a bad disk does to a file."""

from pathlib import Path


def flip(path: Path, at: int, mask: int = 0xFF) -> None:
    """Alter one byte of a file: the bits of `mask`, at an offset that is counted from the end where it is below 0."""
    content = bytearray(path.read_bytes())
    content[at] ^= mask
    path.write_bytes(content)


def flip_in_the_middle(path: Path) -> None:
    """Alter one byte half-way through a file."""
    flip(path, path.stat().st_size // 2)
