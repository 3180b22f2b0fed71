"""Exact effects in bounded memory: blocks of nodes, one image at a time, kept on disk so that a run can go on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.ablations import Ablation
from circuits.corrupting import Corrupted
from circuits.nodes import NodeSet, Parts, minus
from circuits.quadrature import way
from circuits.running import slices
from circuits.wiring import Wiring
from mechinterp.errors import HashMismatchError
from mechinterp.files import read_json, sha256_json, write_atomically, write_json
from mechinterp.progress import Progress
from mechinterp.tails import Tail

BLOCK = 64
"""Nodes whose effects are kept together: what a kill can lose."""


@dataclass(frozen=True)
class Finished:
    """Finished blocks on disk, or nothing where none is kept."""

    folder: Path | None

    @classmethod
    def at(
        cls,
        keep: str | Path | None,
        wiring: Wiring,
        x: Tensor,
        reference: Tensor | None,
        ablation: Ablation,
        method: str,
        resolution: str,
        seed: int,
        regions: Tensor | None,
    ) -> Finished:
        """Open a folder of finished blocks.

        Raises
        ------
        HashMismatchError
            If it holds effects of another model, other images, nodes or settings.

        """
        if keep is None:
            return cls(None)
        decides = {
            "model": wiring.model.weights_hash,
            "nodes": [[n.site, n.encoder.weights_hash, n.members, len(n)] for n in wiring.layers],
            "images": [_digest(t) for t in (x, reference, regions)],
            "metric": wiring.metric.name,
            "ablation": asdict(ablation),
            "settings": [method, resolution, seed, sorted(wiring.freeze)],
        }
        folder, made = Path(keep), sha256_json(decides)
        manifest = folder / "effects.json"
        if manifest.exists() and read_json(manifest)["made_from"] != made:
            raise HashMismatchError(
                f"{folder} holds effects of another model, other images or settings: name another folder to keep these in"
            )
        write_json(manifest, {"made_from": made, **decides})
        return cls(folder)

    def load(self, name: str) -> Tensor | None:
        """Return a finished block."""
        from safetensors.torch import load_file

        path = None if self.folder is None else self.folder / f"{name}.safetensors"
        return load_file(path)["effects"] if path is not None and path.exists() else None

    def save(self, name: str, values: Tensor) -> None:
        """Keep a block, whole or not at all."""
        from safetensors.torch import save_file

        if self.folder is not None:
            tensors = {"effects": values.cpu().contiguous()}
            write_atomically(self.folder / f"{name}.safetensors", lambda path: save_file(tensors, path))


def _digest(tensor: Tensor | None) -> str:
    import hashlib

    if tensor is None:
        return ""
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


@dataclass(eq=False)
class ExactRuns:
    """Exact effects of nodes in one batch.

    Parameters
    ----------
    wiring, b
        Nodes, and the batch in both runs.
    rows
        Changed activations run at once.
    places
        Places in which a node is changed one by one; 1 for the whole image.
    regions
        Region of every token of every image of the whole set.
    steps
        0 to change and run; otherwise points of the integral along each node's own way.
    finished
        Where finished blocks are kept.

    """

    wiring: Wiring
    b: Corrupted
    rows: int
    places: int
    regions: Tensor | None
    steps: int
    finished: Finished

    def of(self, layer: NodeSet, progress: Progress) -> tuple[Float[Tensor, "image node place"], int]:
        """Return the effects of one site's nodes, and how many forward passes of a batch they took."""
        tail = None if self.wiring.freeze else Tail(self.wiring.model, layer.site, self.b.clean.x[:2])
        blocks = [range(s.start, s.stop) for s in slices(len(layer), BLOCK)]
        found = []
        for k, block in enumerate(progress.track(blocks, f"effects of {layer.site}", len(blocks))):
            name = f"{layer.site}-{self.b.rows.start:06d}-{self._draw()}-{k:05d}"
            values = self.finished.load(name)
            if values is None:
                values = torch.stack([self._image(layer, i, block, tail) for i in range(len(self.b.clean))])
                self.finished.save(name, values)
            found.append(values.to(self.wiring.model.device))
        return torch.cat(found, 1), len(layer) * self.places * max(1, self.steps)

    def _draw(self) -> str:
        # batches of several draws share their images; what they put in place tells them apart
        return _digest(self.b.replaced.metric)[:8]

    def _image(self, layer: NodeSet, i: int, block: range, tail: Tail | None) -> Float[Tensor, "node place"]:
        clean, one = self.b.clean, slice(i, i + 1)
        acts, own, other = (
            clean.acts[layer.site][one],
            clean.parts[layer.site][one],
            self.b.replaced.parts[layer.site][one],
        )
        change = minus(other, own)
        out = acts.new_zeros(len(block), self.places)
        jobs = [
            (n, p) for n, live in enumerate(_alive(layer, change, block)) for p in (range(self.places) if live else ())
        ]
        for part in slices(len(jobs), self.rows):
            some = jobs[part]
            changed = _changes(layer, acts, change, [block[n] for n, _ in some])
            if self.places > 1 or self.regions is not None:
                changed = changed * self._where(i, [p for _, p in some], acts.shape[1])[:, :, None].to(changed)
            values = self._values(layer, acts, changed, i, tail)
            for row, (n, p) in enumerate(some):
                out[n, p] = values[row]
        return out

    def _where(self, i: int, places: list[int], tokens: int) -> Tensor:
        at = torch.tensor(places)[:, None]
        own = torch.arange(tokens) if self.regions is None else self.regions[self.b.rows.start + i].cpu()
        return own[None] == at

    def _values(
        self, layer: NodeSet, acts: Tensor, changed: Tensor, i: int, tail: Tail | None
    ) -> Float[Tensor, " row"]:
        """Return the metric's change for every changed activation of one image."""
        before = self.b.clean.metric[i]
        if not self.steps:
            with torch.no_grad():
                return self._metric(layer, acts + changed, i, tail) - before
        total = torch.zeros(len(changed), dtype=acts.dtype, device=acts.device)
        for share, weight in way(self.steps):
            at = (acts + share * changed).requires_grad_()
            with torch.enable_grad():
                gradient = torch.autograd.grad(self._metric(layer, at, i, tail).sum(), at)[0]
            total += weight * (gradient * changed).sum((1, 2))
        return total

    def _metric(self, layer: NodeSet, acts: Tensor, i: int, tail: Tail | None) -> Float[Tensor, " row"]:
        n, state = len(acts), self.b.clean
        x = state.x[i : i + 1].expand(n, *state.x.shape[1:])
        if tail is not None:
            logits = tail.logits(acts, None if tail.exact else x)
        else:
            from circuits.wiring import holding

            with state.frozen.of_image(i).replaying(n), holding(self.wiring.model, {layer.site: acts}, (), {}):
                logits = self.wiring.model.logits(x)
        images = torch.full((n,), self.b.rows.start + i, device=logits.device)
        return self.wiring.metric.at(logits, images)


def _alive(layer: NodeSet, change: Parts, block: range) -> list[bool]:
    """Say which nodes change anything in this image: the others' effect is exactly 0."""
    moved = change.codes[0].any(0)
    owner = layer.owner.to(moved.device)
    alive = torch.zeros(layer.n_features + 1, dtype=torch.bool, device=moved.device)
    alive[torch.where(moved & (owner >= 0), owner, layer.n_features)] = True
    if layer.has_error:
        alive[layer.n_features] = change.error is not None and bool(change.error.any())
    return [bool(a) for a in alive[list(block)]]


def _changes(layer: NodeSet, acts: Tensor, change: Parts, nodes: list[int]) -> Float[Tensor, "row token width"]:
    """Return by how much each node alone changes the activation."""
    mask = torch.zeros(len(nodes), len(layer), dtype=torch.bool, device=acts.device)
    mask[range(len(nodes)), nodes] = True
    if layer.complete:
        return change.codes * layer.features_of(mask)[:, None, :]
    directions = layer.encoder.directions.detach().to(acts)
    out = acts.new_zeros(len(nodes), *acts.shape[1:])
    if layer.members:
        features = layer.features_of(mask[:, : layer.n_features])
        for row, chosen in enumerate(features):
            out[row] = change.codes[0][:, chosen] @ directions[chosen]
    else:
        at = [row for row, n in enumerate(nodes) if n < layer.n_features]
        numbers = [nodes[row] for row in at]
        out[at] = change.codes[0].T[numbers][:, :, None] * directions[numbers][:, None, :]
    if layer.has_error and change.error is not None:
        out[mask[:, -1]] = change.error[0]
    return out
