"""The allocator's settings while a model runs over many batches."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from mechinterp.reused_memory import reused_memory

_ROWS = 12 << 20  # 48 MiB as float32: more than glibc keeps by itself


def _fewest_page_faults_of_a_tensor() -> int:
    """Of ten: the first ones grow the heap, and small blocks that others leave may stand in a tensor's way."""
    faults = []
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(_ROWS)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_large_tensor_takes_the_pages_of_the_one_freed_before_only_within() -> None:
    pages = _ROWS * 4 // resource.getpagesize()
    assert _fewest_page_faults_of_a_tensor() > pages // 2
    with reused_memory():
        assert _fewest_page_faults_of_a_tensor() < pages // 10
        with reused_memory():
            pass
        assert _fewest_page_faults_of_a_tensor() < pages // 10, "an inner one ended"
    assert _fewest_page_faults_of_a_tensor() > pages // 2


def test_the_setting_is_undone_after_an_error() -> None:
    with pytest.raises(ValueError, match="mine"), reused_memory():
        raise ValueError("mine")
    with reused_memory():
        pass


def test_nothing_happens_on_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechinterp.reused_memory._glibc", lambda: None)
    with reused_memory():
        assert torch.ones(3).sum() == 3
