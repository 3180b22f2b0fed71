"""Capture activations: into memory for a batch, into a store for a set of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ConfigError, ModelError, SiteError
from mechinterp.hooks import hook_site
from mechinterp.images.image_set import ImageSet, MedicalImage
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress
from mechinterp.reused_memory import reused_memory

if TYPE_CHECKING:
    from mechinterp.store.manifest import StoreManifest
    from mechinterp.store.reader import ActivationStore
    from mechinterp.store.selection import TokenSelection
    from mechinterp.store.shard import CapturedBatch
    from mechinterp.store.writer import ShardReceipt, StoreWriter

# A shard is what a kill can lose: a small site must not make one of hours of work.
_MOST_IMAGES = 1024

Mapper = Callable[[Callable[[int], "ShardReceipt"], Sequence[int]], Iterable["ShardReceipt"]]


class _SitesReached(BaseException):
    """Leaves a forward pass once every requested site was seen.

    No ``Exception``: a model's own ``except Exception`` must not swallow it, and traced modules print those.
    """


def run_with_cache(
    model: VisionModel,
    x: Float[Tensor, "batch channel height width"],
    sites: Sequence[str],
    *,
    logits: bool = False,
) -> dict[str, Float[Tensor, "batch token width"]]:
    """Run a batch and return the activations of some sites.

    The forward pass stops after the deepest of them, unless the logits are wanted too. The activations are copies, so that
    nothing the model does later changes them; where gradients are on, they are part of the graph.

    Parameters
    ----------
    model
        The model.
    x
        Prepared images, see :meth:`VisionModel.prepare`.
    sites
        Names of the sites.
    logits
        Run to the end and add the logits under the key ``"logits"``, as one token.

    Raises
    ------
    SiteError
        If a site does not exist or is not reached, or is called ``logits`` beside the logits.

    """

    def copied(_name: str, acts: Tensor) -> Tensor:
        # a copy: the next module may work in place on the very tensor it is handed
        return acts.clone(memory_format=torch.contiguous_format)

    return _run_taking(model, x, [sites] if isinstance(sites, str) else sites, copied, logits=logits)


def _run_taking(
    model: VisionModel,
    x: Float[Tensor, "batch channel height width"],
    sites: Sequence[str],
    take: Callable[[str, Float[Tensor, "batch token width"]], Tensor],
    *,
    logits: bool,
) -> dict[str, Tensor]:
    """Run a batch and return what `take` makes of each site's tokens while they are there; see :func:`run_with_cache`."""
    seen: dict[str, Tensor] = {}
    wanted = {name: model.site(name) for name in sites}
    if logits and "logits" in wanted:
        raise SiteError(f"site 'logits' of '{model.spec}' cannot be captured beside the logits: leave one of them out")

    def keep(name: str) -> Callable[[Tensor], None]:
        def visit(raw: Tensor) -> None:
            if name in seen:  # a shared module, called again: a site is what its first call hands over
                return
            seen[name] = take(name, wanted[name].to_tokens(raw))
            if len(seen) == len(wanted) and not logits:
                raise _SitesReached

        return visit

    with ExitStack() as undo:
        for name, site in wanted.items():
            undo.callback(hook_site(model.module, site, keep(name)).remove)
        try:
            if logits:
                seen_logits = model.logits(x)
            elif wanted:
                model.run(x)
        except _SitesReached:
            pass
    missing = [name for name in wanted if name not in seen]
    if missing:
        raise SiteError(f"site '{missing[0]}' was not reached in a forward pass of '{model.spec}'")
    if logits:
        seen["logits"] = seen_logits.unsqueeze(1)
    return seen


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureConfig:
    """What to capture, and how it is stored."""

    sites: Annotated[tuple[str, ...], "places to capture, as `mechinterp sites MODEL` lists them"]
    dtype: Annotated[Literal["float16", "bfloat16", "float32"], "storage type"] = "float32"
    batch_size: Annotated[int, "images per forward pass; part of the store's manifest, since bits depend on it"] = 16
    shard_mib: Annotated[int, "size of one shard of one site [MiB]: the unit of resume and of distribution"] = 64
    outputs: Annotated[bool, "also store the logits; the forward pass then runs to its end"] = False
    tokens: Annotated[
        Literal["all", "cls", "patches", "foreground", "mask"],
        "which tokens: foreground are patches brighter than --threshold, mask those the image's mask covers beyond it",
    ] = "all"
    threshold: Annotated[
        float, "with --tokens foreground or mask: mean over a patch, from 0 to 1, that it must exceed"
    ] = 0.0
    per_image: Annotated[int, "at most this many of those tokens of an image, drawn at random; 0 for no limit"] = 0
    token_seed: Annotated[int, "decides which tokens --per-image draws"] = 0
    threads: Annotated[
        int, "threads of a forward pass, part of the manifest, since bits depend on it; 0: as many as torch uses"
    ] = 0

    def __post_init__(self) -> None:
        if not self.sites:
            raise ConfigError("no site given: name at least one, see `mechinterp sites MODEL`")
        if len(set(self.sites)) != len(self.sites):
            raise ConfigError(f"a site is named twice: {', '.join(self.sites)}")
        if self.batch_size < 1:
            raise ConfigError(f"batch size is {self.batch_size}: it must be at least 1")
        if self.shard_mib < 1:
            raise ConfigError(f"shard size is {self.shard_mib} MiB: it must be at least 1")
        if self.dtype not in {"float16", "bfloat16", "float32"}:
            raise ConfigError(f"storage type is '{self.dtype}': it must be float16, bfloat16 or float32")
        if self.threads < 0:
            raise ConfigError(f"threads is {self.threads}: it must be at least 0")
        _ = self.selection  # refuses settings that cannot be meant

    @property
    def selection(self) -> TokenSelection:
        """Which tokens are stored."""
        from mechinterp.store.selection import TokenSelection

        return TokenSelection(self.tokens, self.threshold, self.per_image, self.token_seed)

    def shard_images(self, model: VisionModel) -> int:
        """Return how many images make a shard: whole batches, as many as fit the largest site into its size.

        At most 1,024 images, or one batch if that is more.
        """
        per_value = 4 if self.dtype == "float32" else 2
        sites = [self.selection.stored(model.site(name)) for name in self.sites]
        per_image = max(s.tokens * s.width for s in sites) * per_value
        fitting = min((self.shard_mib << 20) // per_image, _MOST_IMAGES)
        return max(1, fitting // self.batch_size) * self.batch_size


def local_map(work: Callable[[int], ShardReceipt], shards: Sequence[int]) -> Iterator[ShardReceipt]:
    """Make the shards one after another in this process."""
    for shard in shards:
        yield work(shard)


def capture(
    model: VisionModel,
    images: ImageSet,
    sites: Sequence[str] = (),
    *,
    out: str | Path,
    config: CaptureConfig | None = None,
    preparation: Preparation | None = None,
    append: bool = False,
    mapper: Mapper = local_map,
    progress: Progress = SILENT,
) -> ActivationStore:
    """Capture the activations of some sites for all images into a store on disk.

    A store that is there already, made from the same model, images, preparation and settings, is finished where it was
    interrupted; one made from others is left alone. What is taken over of it is checked: pixels of up to 1,024 images
    against those that were captured, and the activations of one batch against what the model gives now.

    Parameters
    ----------
    model, images
        What to run on what.
    sites
        Names of the sites; or give a whole `config`.
    out
        Folder of the store, or a URL that fsspec knows, such as ``s3://bucket/store``.
    config
        How to capture; replaces `sites`.
    preparation
        How images become the model's input.
    append
        Add the images to those of a finished store, captured the same way; its files stay as they are.
    mapper
        Runs the shards: :func:`local_map`, or another engine's.
    progress
        Sees one step per batch, and notes of the size before and of the coverage after.

    Returns
    -------
    ActivationStore
        Opened for reading.

    Raises
    ------
    SiteError, ModelError, ConfigError, LeakageError, DiskError
        If a site is unknown, the model gives non-finite activations, the folder holds another capture or, with `append`,
        one of these images or was made of other pixels or by other code, a patient would stand in two splits, the disk is
        full.

    """
    from mechinterp.store.reader import ActivationStore
    from mechinterp.store.taking_over import require_same_activations, require_same_pixels
    from mechinterp.store.writer import StoreWriter

    config = config or CaptureConfig(sites=(sites,) if isinstance(sites, str) else tuple(sites))
    preparation = preparation or Preparation()
    if config.tokens == "mask" and images.read_masks is None:
        raise ConfigError(f"'{images.name}' has no masks: store all tokens, or choose them by --tokens foreground")
    with StoreWriter(out, model, images, preparation, config, append=append) as writer:
        pending = writer.pending()
        free = writer.storage.free_bytes()
        progress.note(
            f"{len(images)} images will take {'at most ' * (not writer.plan.aligned)}{writer.tensor_bytes / 2**20:,.0f} MiB"
            + (f"; {free / 2**20:,.0f} MiB are free" if free is not None else "")
        )
        batches = sum(-(-len(writer.images_of(s)) // config.batch_size) for s in pending)
        ticks = progress.track(range(batches), f"capturing {len(config.sites)} site(s)", total=batches)
        work = _ShardWork(model, images, preparation, config, writer, ticks)
        whole = sorted(set(writer.shards).difference(pending))
        if whole:
            with _threads(writer.plan.threads):
                require_same_pixels(writer, images, whole, progress)
                require_same_activations(writer, whole[0], work.rows, model.spec)
        for _ in mapper(work, pending):
            pass  # what a shard holds stands in its receipt on disk, where it is read when all are whole
        for _ in ticks:  # nothing is left of it, but a bar that is not exhausted stays on the screen
            pass
        writer.finish()
    store = ActivationStore.open(out)
    for name in config.sites:
        progress.note(f"{name}: {store.coverage(name)}")
    return store


@dataclass(frozen=True)
class _ShardWork:
    """What a mapper calls to make one shard; it may be sent to another process, which then counts no progress."""

    model: VisionModel
    images: ImageSet
    preparation: Preparation
    config: CaptureConfig
    writer: StoreWriter
    ticks: Iterator[int]

    def __call__(self, shard: int) -> ShardReceipt:
        with _threads(self.writer.plan.threads), reused_memory():
            return self.writer.write(shard, self._batches(self.writer.images_of(shard)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "ticks": iter(())}

    def rows(self, positions: range) -> Mapping[str, Float[Tensor, "row width"]]:
        """Return, by site, the rows that are stored of one batch, without storing them."""
        return self._run(self._load(positions)).rows

    def _batches(self, chosen: range) -> Iterator[CapturedBatch]:
        """Run one shard's images in batches that start at the shard's start, reading one batch ahead."""
        size = self.config.batch_size
        batches = [chosen[i : i + size] for i in range(0, len(chosen), size)]
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = reader.submit(self._load, batches[0])
            for following in [*batches[1:], None]:
                loaded = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._load, following)
                yield self._run(loaded)
                next(self.ticks, None)

    def _run(self, loaded: _LoadedBatch) -> CapturedBatch:
        """Run one batch; its activations are turned into their storage type where they are, and copied only once."""
        from mechinterp.store.shard import DTYPES, CapturedBatch

        dtype = DTYPES[self.config.dtype]
        chosen = {name: self._chosen(name, loaded) for name in self.config.sites}

        def stored(name: str, acts: Tensor) -> Tensor:
            which, site = chosen[name], self.model.site(name)
            if tuple(acts.shape[1:]) != (site.tokens, site.width):
                raise SiteError(
                    f"site '{name}' gave {acts.shape[1]} tokens {acts.shape[2]} wide instead of {site.tokens} tokens "
                    f"{site.width} wide: the model was loaded for images of another size"
                )
            rows = acts.flatten(0, 1) if which is None else acts[torch.from_numpy(which).to(acts.device)]
            kept = rows.to(dtype, copy=True, memory_format=torch.contiguous_format)
            _check_finite(loaded, kept, acts, f"site '{name}'", self.writer.plan)
            return kept

        with torch.inference_mode():
            x = loaded.x.to(self.model.device, non_blocking=True)
            rows = _run_taking(self.model, x, self.config.sites, stored, logits=self.config.outputs)
            logits = rows.pop("logits")[:, 0].float().cpu() if self.config.outputs else None
        if logits is not None:
            _check_finite(loaded, logits, logits, "the logits", self.writer.plan)
        return CapturedBatch(loaded.images, rows, chosen, logits)

    def _chosen(self, name: str, loaded: _LoadedBatch) -> NDArray[np.bool_] | None:
        if self.config.selection == type(self.config.selection)():
            return None
        return self.config.selection.chosen(self.model.site(name), loaded.positions, loaded.shown)

    def _load(self, positions: range) -> _LoadedBatch:
        first = self.writer.plan.first_image
        batch = tuple(self.images[i - first] for i in positions)
        x = self.model.prepare(batch, self.preparation)
        shown = self._shown(batch, x, positions) if self.config.selection.needs_places else None
        return _LoadedBatch(positions, batch, x.pin_memory() if self.model.device.type == "cuda" else x, shown)

    def _shown(
        self, batch: tuple[MedicalImage, ...], x: Tensor, positions: range
    ) -> Float[NDArray[np.float64], "batch row *space"]:
        """Return what the choice of tokens looks at: the grey level the model is shown, or what the masks cover."""
        from mechinterp.store.selection import brightness

        if self.config.tokens == "foreground":
            return brightness(x, self.model.contract)
        plain = replace(self.model.contract, channels=1, value_range=(0.0, 1.0), mean=(0.0,), std=(1.0,))
        first, placed = self.writer.plan.first_image, []
        for image, position in zip(batch, positions, strict=True):
            at = position - first
            covered = self.images.mask(at, *self.images.masks(at))
            as_image = replace(image, pixels=covered.astype(np.float32), intensity_range=(0.0, 1.0))
            placed.append(replace(self.preparation, gain=1.0).apply(as_image, plain)[0][0])
        return np.stack(placed).astype(np.float64)


@dataclass(frozen=True)
class _LoadedBatch:
    """Images that were read and prepared; `shown` is what the choice of tokens looks at."""

    positions: range
    images: tuple[MedicalImage, ...]
    x: Tensor
    shown: NDArray[np.float64] | None


def _check_finite(loaded: _LoadedBatch, stored: Tensor, before: Tensor, where: str, plan: StoreManifest) -> None:
    """Name the first image with a number that is not finite; one pass, since NaN and infinity both reach the extremes."""
    if stored.numel() == 0:
        return
    low, high = torch.aminmax(stored)
    if bool(low.isfinite() & high.isfinite()):
        return
    spoilt = (~before.to(stored.dtype).flatten(1).isfinite()).any(1)
    bad = int(spoilt.nonzero()[0])
    image = loaded.images[bad].id
    if bool(before[bad].isfinite().all()):
        wider = "bfloat16 or float32" if plan.dtype == "float16" else "float32"
        raise ModelError(f"{where} has values beyond {plan.dtype} for image '{image}': store it with --dtype {wider}")
    raise ModelError(
        f"'{plan.model_spec}' gives NaN or infinity at {where} for image '{image}': check that image and the weights"
    )


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Compute on as many threads as the store's plan says: sums differ in their last bits with another number."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
