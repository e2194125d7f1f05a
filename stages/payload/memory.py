"""What this process occupies, as the kernel counts it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict

FIELDS = {"rss": "VmRSS", "peak": "VmHWM", "anonymous": "RssAnon", "file": "RssFile", "shared": "RssShmem"}


def marks() -> Dict[str, int]:
    """rss, peak since the last reset, and the anonymous, file-backed and shared parts of rss; bytes."""
    status = Path("/proc/self/status").read_text()
    found = {name: re.search(rf"^{key}:\s*(\d+) kB$", status, re.MULTILINE) for name, key in FIELDS.items()}
    return {name: int(match.group(1)) * 1024 for name, match in found.items() if match}


def reset_peak() -> bool:
    """Set the peak back to what is occupied now (5 in clear_refs, see proc(5)); False where the kernel refuses."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
