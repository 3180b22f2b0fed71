"""A tensor file written bit by bit is the file that safetensors writes at once."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save

from mechinterp.store.shard import _TensorFile, safetensors_header
from mechinterp.store.storage import LocalStorage


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(6, 5), (1, 1), (1000, 3), (0, 4)])
@pytest.mark.parametrize("known", [True, False])
def test_its_bytes_are_those_of_safetensors(tmp_path, dtype, shape, known):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows = shape[0] if known else None
    file = _TensorFile(LocalStorage(tmp_path), "a/b.safetensors", "activations", dtype, (rows, shape[1]))
    for part in (x[: shape[0] // 2], x[shape[0] // 2 :]):
        file.add(part)
    said = file.finish()
    data = (tmp_path / "a/b.safetensors").read_bytes()
    assert data == save({"activations": x})
    assert said["bytes"] == len(data)
    assert safetensors_header("activations", dtype, shape) == data[: len(data) - x.numel() * x.itemsize]


def test_what_is_abandoned_leaves_nothing(tmp_path):
    file = _TensorFile(LocalStorage(tmp_path), "b.safetensors", "t", torch.float32, (2, 2))
    file.add(torch.ones(1, 2))
    assert len(list(tmp_path.iterdir())) == 1
    file.abandon()
    assert list(tmp_path.iterdir()) == []
