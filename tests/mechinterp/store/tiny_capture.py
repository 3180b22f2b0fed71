"""A capture small enough to be run, killed and run again dozens of times; as a script, it does just that.

``python tiny_capture.py FOLDER SEED some|all`` captures into ``FOLDER/undisturbed`` and then, into a folder each, lets a
forked child die of SIGKILL before and after a rename and at uniformly random times, and finishes what it left.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mechinterp.capturing import CaptureConfig, capture
from mechinterp.images.image_set import ImageSet
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.sites import Site
from mechinterp.token_grid import TokenGrid

GRID = TokenGrid(16, 16, (1, 1), (0.5, 0.5), (3, 3))
# a site whose name is an ONNX node's, one with a prefix token, one vector
SITES = {
    "net/block 1/Conv": Site("net/block 1/Conv", "conv", "output", "map", 64, 256, 0, GRID),
    "tokens": Site("tokens", "tokens", "output", "tokens", 64, 257, 1, GRID),
    "head": Site("head", "head", "output", "vector", 3, 1),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.tokens, self.head = nn.Conv2d(1, 64, 3, padding=1), nn.Identity(), nn.Linear(64, 3)

    def forward(self, x):
        cells = self.conv(x).flatten(2).transpose(1, 2)
        return self.head(self.tokens(torch.cat([cells[:, :1] * 0, cells], 1)).relu().mean(1))


def tiny_model(seed=0, scale=1.0):
    torch.manual_seed(seed)
    module = Net().eval()
    with torch.no_grad():
        module.conv.weight.mul_(scale)
    contract = InputContract(16, 16, 1, mean=(0.0,), std=(1.0,))
    return VisionModel(module, f"py:tiny{seed}", contract, ("a", "b", "c"), "logits", SITES, trained=False)


def tiny_images(n=37, **settings):
    pixels = np.random.default_rng(n).random((n, 16, 16), dtype=np.float32)
    return ImageSet(
        ids=tuple(f"image-{i}" for i in range(n)),
        read=lambda i: pixels[i],
        labels=tuple("ab"[i % 2] if i % 5 else None for i in range(n)),
        groups=tuple(f"patient-{i // 4}" for i in range(n)),
        splits=tuple("train" if i < n // 2 // 4 * 4 else "test" for i in range(n)),
        **settings,
    )


def config(**settings):
    """Return settings with which one shard holds 15 images."""
    return CaptureConfig(**{"sites": tuple(SITES), "batch_size": 5, "shard_mib": 1, "outputs": True, **settings})


def tiny_capture(folder, n=37, **settings):
    return capture(tiny_model(), tiny_images(n), out=folder, config=config(**settings))


def tree(folder):
    """Return every path below a folder with a hash of its bytes."""
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _forked(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except Exception as error:  # noqa: BLE001  a fork must not go on as its parent
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return pid


def _finished(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _dying_at(folder, rename, after):
    """Capture, and be killed at one of the renames: before it, a temporary file is left; after it, a whole one."""
    plain, count = Path.replace, iter(range(1000))

    def replace(self, target):
        mine = next(count) == rename
        if mine and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = plain(self, target)
        if mine and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    Path.replace = replace
    tiny_capture(folder)


def main():
    root, chance, all_of_them = Path(sys.argv[1]), random.Random(int(sys.argv[2])), sys.argv[3] == "all"
    torch.set_num_threads(1)
    begun = time.monotonic()
    assert _finished(_forked(lambda: tiny_capture(root / "undisturbed"))) == 0
    seconds = time.monotonic() - begun
    # every file is renamed into place once: plan, three sites' tensors and indices, logits, receipts, list, manifest
    points = [(rename, after) for rename in range(1 + 3 * (3 * 2 + 2) + 2) for after in (False, True)]
    for rename, after in points if all_of_them else [points[1], points[-2], *chance.sample(points, 3)]:
        folder = root / f"rename-{rename}-{after}"
        death = _finished(_forked(lambda f=folder, r=rename, a=after: _dying_at(f, r, a)))
        assert death == -signal.SIGKILL, (rename, after, death)
        assert _finished(_forked(lambda f=folder: tiny_capture(f))) == 0
    for trial in range(20 if all_of_them else 2):
        folder = root / f"time-{trial}"
        for _ in range(2):  # killed, and killed again while it is being finished
            pid = _forked(lambda f=folder: tiny_capture(f))
            time.sleep(chance.uniform(0, seconds))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert _finished(_forked(lambda f=folder: tiny_capture(f))) == 0


if __name__ == "__main__":
    main()
