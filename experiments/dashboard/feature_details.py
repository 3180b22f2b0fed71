"""What a feature's page shows beyond the run's results: further galleries, near features, seeds it recurs in.

Computed once from the run's store and autoencoders, in one pass over the activations, and kept in the run as
``feature-details.json`` until store or autoencoders change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.dashboard.desk.opening import DeskOfRun, encoder_of_run
from experiments.dashboard.record import Record
from experiments.dashboard.run_view import RunView
from mechinterp.errors import MechinterpError
from mechinterp.files import read_json, sha256_json, write_json
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.dashboard.desk.desk import Desk
    from mechinterp.feature_encoder import FeatureEncoder
    from mechinterp.store.reader import ActivationStore
    from sparse_autoencoders.gallery import Examples, Gallery

FILE = "feature-details.json"
FORMAT = 2
EXAMPLES, NEIGHBOURS = 6, 6
MOST_IMAGES = 2_000
"""Images that the further galleries are chosen from, spread over the run: a reader waits for this when the pages are opened."""
QUANTILES, PER_QUANTILE = 3, 2


class FeatureDetails:
    """Details of all features of a run; empty where they were not computed.

    Parameters
    ----------
    content
        What stands in the file.

    """

    def __init__(self, content: Record) -> None:
        self._content = content

    @classmethod
    def read(cls, view: RunView) -> FeatureDetails:
        """Read a run's details; none where there is no file of this format, or one of another store or autoencoder."""
        path = view.run_dir / FILE
        content = Record(read_json(path)) if path.is_file() else Record(None)
        shown = (view["provenance"]["store_hash"].text(), view["sae"]["weights_hash"].text())
        own = content["format"].integer() == FORMAT and (content["store"].text(), content["sae"].text()) == shown
        return cls(content if own else Record(None))

    def __getitem__(self, feature: int | None) -> Record:
        """Return one feature's ``neighbours``, ``recurs``, ``relevance`` and ``random``; a record of nothing without them."""
        return Record(None) if feature is None else self._content["features"][feature]

    @property
    def others(self) -> int:
        """How many autoencoders of other seeds a feature is looked for in."""
        return self._content["others"].integer() or 0

    @property
    def tokens(self) -> int:
        """How many tokens of an image the examples' tokens are counted among, those in front of the cells too."""
        return self._content["tokens"].integer() or 0

    @property
    def images(self) -> int:
        """How many images the further galleries were chosen from."""
        return self._content["images"].integer() or 0

    @property
    def objective(self) -> str:
        """What relevance is for; empty where it was not computed."""
        return self._content["objective"].text()

    def recurs(self, feature: int | None) -> str | None:
        """Return in how many other seeds a feature recurs, in words; ``None`` where there are no others."""
        found = self[feature]["recurs"].integer()
        return None if found is None or not self.others else f"{found} of {self.others}"


def ensure_details(view: RunView, desk: DeskOfRun, *, progress: Progress = SILENT) -> FeatureDetails:
    """Compute a run's details where they are absent or of other parts, and return them.

    A run without a store, or whose autoencoder is gone, keeps what it has: its pages then say what was not run.

    Parameters
    ----------
    view, desk
        The run; its model is loaded for the relevance gallery only.
    progress
        Sees the pass over the activations.

    """
    if desk.missing:
        return FeatureDetails.read(view)
    try:
        _compute(view, desk, progress)
    except MechinterpError as error:
        progress.note(f"further galleries, near features and seeds are left out: {error}")
    return FeatureDetails.read(view)


def _compute(view: RunView, desk: DeskOfRun, progress: Progress) -> None:
    from experiments.analysis.measurements import evenly
    from mechinterp.store.reader import ActivationStore
    from sparse_autoencoders.gallery import choose_examples

    store, encoder = ActivationStore.open(view.run_dir / "activations"), encoder_of_run(view)
    images = evenly(np.arange(len(store)), MOST_IMAGES)
    others = _other_seeds(view.run_dir, encoder)
    made_from = sha256_json([FORMAT, store.hash, encoder.weights_hash, [other.weights_hash for other in others]])
    path = view.run_dir / FILE
    if path.is_file() and Record(read_json(path))["made_from"].text() == made_from:
        return
    opened, gradients = _relevance(desk, store, progress)
    gallery = choose_examples(
        encoder, store, images, top=EXAMPLES, per_quantile=PER_QUANTILE, quantiles=QUANTILES, gradients=gradients, progress=progress
    )  # fmt: skip
    write_json(path, {
        "format": FORMAT,
        "made_from": made_from,
        "store": store.hash,
        "sae": encoder.weights_hash,
        "objective": opened.objective.name if opened else "",
        "others": len(others),
        "images": len(images),
        "tokens": int(store.read(encoder.site, [0]).shape[1]),
        "features": _records(encoder, others, gallery, store, progress),
    })  # fmt: skip


def _other_seeds(run_dir: Path, encoder: FeatureEncoder) -> list[FeatureEncoder]:
    """Return the run's autoencoders that were trained as this one was, from other seeds."""
    from sparse_autoencoders import SparseAutoencoder
    from sparse_autoencoders.other_seeds import of_other_seeds

    if not isinstance(encoder, SparseAutoencoder):
        return []
    every = [SparseAutoencoder.load(path.parent) for path in sorted((run_dir / "saes").rglob("cfg.json"))]
    return list(of_other_seeds(encoder, every))


def _relevance(
    desk: DeskOfRun, store: ActivationStore, progress: Progress
) -> tuple[Desk | None, Callable[[NDArray[np.int64]], Tensor] | None]:
    """Return what gives the objective's gradients at the site; nothing where the model cannot be loaded."""
    from sparse_autoencoders.gallery import metric_gradients

    try:
        opened = desk.open()
    except MechinterpError as error:
        progress.note(f"no gallery by relevance: {error}")
        return None, None
    if opened.tail.exact and store.read(opened.site.name, [0]).shape[1] == opened.site.tokens:
        return opened, lambda chosen: opened.gradients(store.read(opened.site.name, chosen))
    return opened, metric_gradients(opened.model, opened.images, opened.site.name, opened.objective, opened.preparation)


def _records(
    encoder: FeatureEncoder, others: Sequence[FeatureEncoder], gallery: Gallery, store: ActivationStore, progress: Progress
) -> list[dict[str, Any]]:  # fmt: skip
    from sparse_autoencoders.stability import stability

    recurs = stability(encoder, others).recurs_in.tolist() if others else [None] * encoder.width
    near = _neighbours(encoder)
    kinds = {"relevance": gallery.relevance, "random": gallery.random}
    maps = _maps(encoder, store, [k for k in kinds.values() if k is not None], progress)
    return [
        {
            "neighbours": near[feature],
            "recurs": recurs[feature],
            **{
                kind: [] if examples is None else _examples(examples, feature, maps) for kind, examples in kinds.items()
            },
        }
        for feature in range(encoder.width)
    ]


def _examples(examples: Examples, feature: int, maps: dict[tuple[int, int], dict[str, Any]]) -> list[dict[str, Any]]:
    rows = zip(examples.images[feature], examples.values[feature], examples.quantile[feature], strict=True)
    return [
        {"image": int(i), "value": float(f"{value:.4g}"), "quantile": round(float(share), 3), **maps[feature, int(i)]}
        for i, value, share in rows
        if i >= 0
    ]


def _maps(
    encoder: FeatureEncoder, store: ActivationStore, kinds: Sequence[Examples], progress: Progress
) -> dict[tuple[int, int], dict[str, Any]]:
    """Return, per feature and image that is an example of it, the tokens on which it is not zero and its values there."""
    import torch

    wanted: dict[int, set[int]] = {}
    for examples in kinds:
        for feature, row in enumerate(examples.images):
            for image in row[row >= 0].tolist():
                wanted.setdefault(image, set()).add(feature)
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for image in progress.track(sorted(wanted), "maps of further galleries", total=len(wanted)):
        features = sorted(wanted[image])
        with torch.no_grad():
            codes = encoder.encode(store.read(encoder.site, [image]))[0][:, features].numpy()
        for column, feature in enumerate(features):
            at = np.flatnonzero(codes[:, column])
            values = [float(f"{v:.4g}") for v in codes[at, column]]
            found[feature, image] = {"tokens": at.tolist(), "values": values}
    return found


def _neighbours(encoder: FeatureEncoder) -> list[list[list[float]]]:
    """Return, per feature, those with the nearest directions and the cosine, nearest first."""
    import torch

    directions = torch.nn.functional.normalize(encoder.directions.detach().float(), dim=1)
    n = min(NEIGHBOURS, len(directions) - 1)
    near: list[list[list[float]]] = []
    for start in range(0, len(directions), 1024):
        block = directions[start : start + 1024] @ directions.T
        block[torch.arange(len(block)), torch.arange(start, start + len(block))] = -2.0
        cosine, index = block.topk(n, dim=1)
        near += [
            [[int(i), round(float(c), 3)] for i, c in zip(*row, strict=True)]
            for row in zip(index.tolist(), cosine.tolist(), strict=True)
        ]
    return near
