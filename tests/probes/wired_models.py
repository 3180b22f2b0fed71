"""Small models wired by hand, so that it is known which physical quantity they use, and phantoms to try them on."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from mechinterp.capturing import run_with_cache
from mechinterp.images.image_set import MedicalImage
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.phantoms.fundus import FundusRenderer
from mechinterp.phantoms.fundus_parameters import FundusParameters
from mechinterp.phantoms.random_streams import Identity
from mechinterp.sites import Site

SIZE = 64
SITE = "evidence"
WIDTH = 6
BRIGHT, DARK, TAG, GREEN, RED, LARGE = range(WIDTH)


class Evidence(nn.Module):
    """What is in the picture, one quantity a channel, then turned by a rotation so that no neuron is any of them."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("rotation", torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0])
        rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
        corner = (rows >= SIZE - 6) & (columns < 10)  # where the tag is, outside the field of view
        self.register_buffer("corner", corner.float())

    def forward(self, x):
        green, red = x[:, 1], x[:, 0]
        around = nn.functional.avg_pool2d(x[:, 1:2], 9, stride=1, padding=4)[:, 0]
        seen = torch.stack(
            [
                (green - 0.3 * red - 0.7 * x[:, 2]).relu(),  # yellower than the disc, brighter than the retina
                (around - green - 0.04).relu(),
                x.mean(1) * self.corner,
                0.05 * green,
                0.05 * red,
                0.1 * around.square(),
            ],
            -1,
        )
        cells = nn.functional.avg_pool2d(torch.einsum("bhwc,dc->bdhw", seen, self.rotation), SIZE // 8)
        return 1000 * cells


class Wired(nn.Module):
    """Reads one channel of the evidence, through a bend; everything else is there and ignored."""

    def __init__(self, channel, weight, bend):
        super().__init__()
        self.evidence = Evidence()
        self.channel, self.weight, self.bend = channel, weight, bend

    def forward(self, x):
        mean = self.evidence(x).mean((2, 3)) @ self.evidence.rotation
        z = self.weight * mean[:, self.channel]
        z = self.bend * torch.tanh(z / self.bend) if self.bend else z
        return torch.stack([-z / 2, z / 2], 1)


def wired(channel, weight, bend=0.0, trained=True):
    site = Site(SITE, "evidence", "output", "map", WIDTH, 64)
    return VisionModel(
        Wired(channel, weight, bend).eval(), "py:wired", InputContract(SIZE, SIZE, 3), ("healthy", "ill"), "logits",
        {SITE: site}, trained=trained,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def rendered(parameters, identity):
    """Render each eye once, however many models look at it."""
    return replace(FundusRenderer(SIZE)(parameters, identity), render=rendered)


def eyes(patients, seed):
    """One eye a patient: lesions, light and the burnt-in tag vary on their own, the anatomy little."""
    found = []
    for patient in range(patients):
        random = np.random.default_rng((seed, patient))
        parameters = FundusParameters(
            exudate_area_mm2=random.uniform(0.3, 3.0),
            exudate_count=12,
            exudate_angle_deg=random.uniform(-60, 60),
            haemorrhage_area_mm2=random.uniform(0.2, 2.0),
            haemorrhage_angle_deg=random.uniform(-180, 180),
            illumination=random.uniform(0.95, 1.05),
            pigmentation=random.uniform(0.35, 0.45),
            camera_tag=int(random.integers(0, 2)),
        )
        found.append(rendered(parameters, Identity(seed, patient, 0)))
    return found


def pooled(model, phantoms):
    """Mean activation of each phantom at the site."""
    x = model.prepare([MedicalImage("eye", p.pixels, spacing_mm=p.spacing_mm) for p in phantoms])
    with torch.no_grad():
        return run_with_cache(model, x, [SITE])[SITE].mean(1)
