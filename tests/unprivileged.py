"""Run code as a user whom file permissions bind: tests often run as root, and root reads and writes everything."""

import subprocess
import sys
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parent.parent

# Only the power to pass over permissions goes; the user stays, so the Python at hand stays readable. Capabilities
# belong to the thread: threads started later inherit what is left. Numbers from linux/capability.h.
_GIVE_UP = """
import ctypes, os, sys
if os.geteuid() == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) == 0:
        for at in range(3):  # effective, permitted, inheritable: CAP_DAC_OVERRIDE is 1, CAP_DAC_READ_SEARCH is 2
            sets[at] &= ~0b110
    if libc.capset(header, sets) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
"""


def run_unprivileged(code: str, *arguments: str | Path, timeout_s: float = 60.0) -> "subprocess.CompletedProcess[str]":
    """Run Python code in a child that permissions bind, with the repository importable.

    Args:
        code: source; finds `arguments` in sys.argv[1:], and should print what the test wants to know.
        arguments: for the code.
        timeout_s: then it is killed.

    Returns:
        The child, ended, with its output as text.
    """
    command = [sys.executable, "-c", _GIVE_UP + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=_REPOSITORY, timeout=timeout_s)
