"""How much memory may still be taken here: of the machine, and of the container that this may be."""

from __future__ import annotations

from pathlib import Path

#: (limit, use) of a container's own control group, versions 2 and 1 (bytes)
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available(meminfo: Path = Path("/proc/meminfo"), groups: tuple[tuple[str, str], ...] = _GROUPS) -> int:
    """Return bytes that can still be had without anybody being killed."""
    found = [int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if line.startswith("MemAvail")]
    for limit, use in groups:
        try:
            most = Path(limit).read_text().strip()
            used = int(Path(use).read_text())
        except OSError:
            continue
        if most != "max":
            found.append(int(most) - used)
    return min(found, default=0)
