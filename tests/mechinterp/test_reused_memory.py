"""The allocator's settings while a model runs over many batches."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from mechinterp.reused_memory import reused_memory

# In a process of its own: what other tests leave on the heap may serve a tensor without a page fault.
_COUNT = """
import resource

import torch

from mechinterp.reused_memory import reused_memory

ROWS = 12 << 20  # 48 MiB as float32: more than glibc keeps by itself


def fewest():
    # of ten: the first ones grow the heap, and small blocks may stand in a tensor's way
    faults = []
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(ROWS)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(faults) * resource.getpagesize() / (ROWS * 4)


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / (ROWS * 4)


print(fewest())
with reused_memory():
    print(fewest())
    with reused_memory():
        pass
    print(fewest())
    kept = resident()
print(kept - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_large_tensor_takes_the_pages_of_the_one_freed_before_only_within() -> None:
    said = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, check=True, text=True).stdout
    before, within, after_an_inner_one, given_back = (float(share) for share in said.split())
    assert before > 0.5
    assert within < 0.1
    assert after_an_inner_one < 0.1
    assert given_back > 0.5


def test_the_setting_is_undone_after_an_error() -> None:
    with pytest.raises(ValueError, match="mine"), reused_memory():
        raise ValueError("mine")
    with reused_memory():
        pass


def test_nothing_happens_on_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechinterp.reused_memory._glibc", lambda: None)
    with reused_memory():
        assert torch.ones(3).sum() == 3
