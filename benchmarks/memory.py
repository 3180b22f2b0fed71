"""Resident memory of the process that asks."""

from __future__ import annotations

from pathlib import Path


def held() -> float:
    """Return what this process holds now [MiB]."""
    return _mebibytes("VmRSS")


def peak() -> float:
    """Return the most that this process has held [MiB].

    ``ru_maxrss`` is not that: of a process that a larger one started it is the larger one's.
    """
    return _mebibytes("VmHWM")


def _mebibytes(which: str) -> float:
    said = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in said if line.startswith(f"{which}:")) / 1024
