"""The most memory this process has held. Imports nothing, so that environments without steerlab can ask as well."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_mib() -> float:
    """Most memory this process has held, in MiB.

    Linux carries `ru_maxrss` over from the process that started this one, so the kernel's own mark of this program is preferred.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
