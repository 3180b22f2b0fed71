"""An activation store in memory, with the reader's interface; tests with files use the real one."""

import numpy as np
import pandas as pd
import torch

from mechinterp.errors import ImagesError, SiteError
from mechinterp.sites import Site
from mechinterp.store.manifest import StoreManifest
from mechinterp.store.statistics import SiteStatistics


class MemoryStore:
    def __init__(self, acts_bnd, site="site", splits=None, labels=None, weights="w" * 64, preparation=None):
        n, tokens, width = acts_bnd.shape
        manifest = StoreManifest(
            model={
                "spec": "py:test",
                "weights_hash": weights,
                "trained": True,
                "weights": "embedded",
                "class_names": [],
            },
            preparation=preparation or {"size": 8},
            images={"n": n},
            sites={site: Site(site, site, "output", "tokens", width, tokens)},
            dtype="float32",
            batch_size=1,
            shard_images=n,
            outputs=False,
            threads=1,
        )
        self.manifest, self.acts = manifest, acts_bnd
        self.images = pd.DataFrame(
            {
                "id": [f"image-{i}" for i in range(n)],
                "label": labels or [None] * n,
                "group": [f"g{i}" for i in range(n)],
                "split": splits or [None] * n,
            }
        )

    @property
    def sites(self):
        return tuple(self.manifest.sites)

    @property
    def hash(self):
        return "s" * 64

    def width(self, site):
        return self._site(site).width

    def tokens(self, site):
        return self._site(site).tokens

    def where(self, split):
        found = np.flatnonzero(self.images["split"].to_numpy() == split)
        if len(found) == 0:
            raise ImagesError(f"no image of split '{split}'")
        return found

    def read(self, site, images=None):
        self._site(site)
        return self.acts.clone() if images is None else self.acts[torch.from_numpy(np.asarray(images, dtype=np.int64))]

    def rows(self, site, images=None):
        return self.read(site, images).flatten(0, 1)

    def rows_of(self, site, images=None):
        return np.full(len(self.read(site, images)), self.tokens(site))

    def batches(self, site, batch_size, *, seed, epoch=0, start=0, images=None):
        rows = self.read(site, images).flatten(0, 1)
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(rows)))
        for at in range(start * batch_size, len(rows) - batch_size + 1, batch_size):
            yield rows[order[at : at + batch_size]]

    def statistics(self, site, images=None):
        return SiteStatistics.of(self.read(site, images).flatten(0, 1))

    def _site(self, name):
        if name not in self.manifest.sites:
            raise SiteError(f"no site '{name}'")
        return self.manifest.sites[name]


def sparse_combinations(n, tokens, width=16, features=32, active=3, seed=0):
    """Tokens made of a few non-negative multiples of known unit directions; returns them and the directions."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(features, width, generator=g), dim=-1)
    codes = torch.zeros(n * tokens, features)
    chosen = torch.rand(n * tokens, features, generator=g).topk(active).indices
    codes.scatter_(1, chosen, 1 + torch.rand(n * tokens, active, generator=g))
    return (codes @ directions + 0.5).reshape(n, tokens, width), directions
