"""Why does training keep the memory that it has freed? Because fetching it anew costs more than computing in it."""

import ctypes
import sys

# glibc's mallopt; the numbers are from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NEVER_TRIM = 2**31 - 1
_GROWTH_BYTES = 256 * 2**20


def keep_freed_memory() -> bool:
    """Tell the allocator not to give large blocks back to the kernel, for the rest of this process's life.

    A training step on a CPU allocates and frees gigabytes in blocks of tens of megabytes. By default glibc maps and
    unmaps each of them, and the kernel clears every page again. EfficientNet-Lite0, batches of 64, two cores, pictures
    a second: 224 px 25 -> 41, 160 px 56 -> 79; embedding 134 -> 189. The process holds its peak until it ends.

    Returns:
        Whether this allocator takes the advice; only glibc's does.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER_TRIM), (_TOP_PAD, _GROWTH_BYTES))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
