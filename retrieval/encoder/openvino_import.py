"""How is OpenVINO imported without its telemetry?"""

import importlib
import sys
import threading
from typing import Any

_TELEMETRY = "openvino_telemetry"
_lock = threading.Lock()


def import_openvino() -> Any:
    """Import openvino without letting it report that it was imported.

    Plain `import openvino` writes an identifier into the home folder and sends an event over the network, unless the
    user opted out by hand. OpenVINO falls back to a silent stand-in where its telemetry package is not installed;
    for the time of the import this process looks like that. An openvino that was imported before is left as it is.
    """
    with _lock:
        if "openvino" not in sys.modules and _TELEMETRY not in sys.modules:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # how Python marks "cannot be imported"
            try:
                importlib.import_module("openvino")
            finally:
                del sys.modules[_TELEMETRY]
    return importlib.import_module("openvino")
