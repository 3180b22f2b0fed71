"""A memory store of several sites whose rows are those of the same tokens."""

from dataclasses import replace

from memory_store import MemoryStore


class PairedStore(MemoryStore):
    def __init__(self, parts, **settings):
        first = next(iter(parts))
        super().__init__(parts[first], site=first, **settings)
        self.parts = parts
        like = self.manifest.sites[first]
        sites = {n: replace(like, name=n, module=n, width=a.shape[2], tokens=a.shape[1]) for n, a in parts.items()}
        self.manifest = replace(self.manifest, sites=sites)

    def read(self, site, images=None):
        self._site(site)
        self.acts = self.parts[site]
        return super().read(site, images)

    def batches(self, *given, buffer_mib=0, **settings):
        return super().batches(*given, **settings)
