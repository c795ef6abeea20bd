"""The instructions of this CPU, for which programs are compiled."""

import hashlib
import platform
from pathlib import Path


def digest() -> str:
    """Return eight hex digits that differ between CPUs with different instructions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = [line for line in lines if line.startswith(("flags", "Features"))]
    described = platform.machine() + "".join(flags[:1])
    return hashlib.sha256(described.encode()).hexdigest()[:8]
