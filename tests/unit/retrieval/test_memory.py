"""Where the allocator takes the advice, memory that was freed stays with the process."""

import subprocess
import sys

import pytest

from retrieval.training import memory

# A large block is written and freed; how much of it stays is printed as a share. In a process of its own, because the
# advice cannot be taken back, and by the file's path, which spares it torch.
_FREE_A_BLOCK = """
import ctypes, runpy, sys

def resident_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

if sys.argv[1] == "advised":
    assert runpy.run_path(sys.argv[2])["keep_freed_memory"]()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
size = 64 * 2**20
before = resident_bytes()
block = libc.malloc(ctypes.c_size_t(size))
ctypes.memset(block, 1, size)
libc.free(block)
print((resident_bytes() - before) / size)
"""


def kept_share(mode: str) -> float:
    command = [sys.executable, "-c", _FREE_A_BLOCK, mode, memory.__file__]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_freed_block_stays_with_the_process_that_asked_for_it() -> None:
    assert kept_share("advised") > 0.9
    assert kept_share("as usual") < 0.1


def test_elsewhere_the_advice_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not memory.keep_freed_memory()
