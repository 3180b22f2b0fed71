"""Capture activations: into memory for a batch, into a store for a set of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import ConfigError, SiteError
from mechinterp.hooks import hook_site
from mechinterp.images.image_set import ImageSet, MedicalImage
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from mechinterp.store.reader import ActivationStore
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
    seen: dict[str, Tensor] = {}
    wanted = {name: model.site(name) for name in ([sites] if isinstance(sites, str) else sites)}
    if logits and "logits" in wanted:
        raise SiteError(f"site 'logits' of '{model.spec}' cannot be captured beside the logits: leave one of them out")

    def keep(name: str) -> Callable[[Tensor], None]:
        def visit(raw: Tensor) -> None:
            if name in seen:  # a shared module, called again: a site is what its first call hands over
                return
            # a copy: the next module may work in place on the very tensor it is handed
            seen[name] = wanted[name].to_tokens(raw).clone(memory_format=torch.contiguous_format)
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

    def shard_images(self, model: VisionModel) -> int:
        """Return how many images make a shard: whole batches, as many as fit the largest site into its size.

        At most 1,024 images, or one batch if that is more.
        """
        per_value = 4 if self.dtype == "float32" else 2
        sites = [model.site(name) for name in self.sites]
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
    mapper: Mapper = local_map,
    progress: Progress = SILENT,
) -> ActivationStore:
    """Capture the activations of some sites for all images into a store on disk.

    A store that is there already, made from the same model, images, preparation and settings, is finished where it was
    interrupted; one made from others is left alone.

    Parameters
    ----------
    model, images
        What to run on what.
    sites
        Names of the sites; or give a whole `config`.
    out
        Folder of the store.
    config
        How to capture; replaces `sites`.
    preparation
        How images become the model's input.
    mapper
        Runs the shards: :func:`local_map`, or another engine's.
    progress
        Sees one step per batch.

    Returns
    -------
    ActivationStore
        Opened for reading.

    Raises
    ------
    SiteError, ModelError, ConfigError, DiskError
        If a site is unknown, the model gives non-finite activations, the folder holds another capture, the disk is full.

    """
    from mechinterp.store.reader import ActivationStore
    from mechinterp.store.writer import StoreWriter

    config = config or CaptureConfig(sites=(sites,) if isinstance(sites, str) else tuple(sites))
    preparation = preparation or Preparation()
    with StoreWriter(Path(out), model, images, preparation, config) as writer:
        pending = writer.pending()
        batches = sum(-(-len(writer.images_of(s)) // config.batch_size) for s in pending)
        ticks = progress.track(range(batches), f"capturing {len(config.sites)} site(s)", total=batches)
        for receipt in mapper(_ShardWork(model, images, preparation, config, writer, ticks), pending):
            writer.accept(receipt)
        for _ in ticks:  # nothing is left of it, but a bar that is not exhausted stays on the screen
            pass
        writer.finish()
    return ActivationStore.open(out)


@dataclass(frozen=True)
class CapturedBatch:
    """One batch on its way to disk; its tensors may still lie on the model's device."""

    images: tuple[MedicalImage, ...]
    acts: dict[str, Float[Tensor, "batch token width"]]
    logits: Float[Tensor, "batch class"] | None


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
        with _threads(self.writer.plan.threads):
            return self.writer.write(shard, self._batches(self.writer.images_of(shard)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "ticks": iter(())}

    def _batches(self, chosen: range) -> Iterator[CapturedBatch]:
        """Run one shard's images in batches that start at the shard's start, reading one batch ahead."""
        size = self.config.batch_size
        batches = [chosen[i : i + size] for i in range(0, len(chosen), size)]
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = reader.submit(self._load, batches[0])
            for following in [*batches[1:], None]:
                batch, x = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._load, following)
                with torch.inference_mode():
                    x = x.to(self.model.device, non_blocking=True)
                    acts = run_with_cache(self.model, x, self.config.sites, logits=self.config.outputs)
                logits = acts.pop("logits")[:, 0] if self.config.outputs else None
                next(self.ticks, None)
                yield CapturedBatch(batch, acts, logits)

    def _load(self, positions: range) -> tuple[tuple[MedicalImage, ...], Tensor]:
        batch = tuple(self.images[i] for i in positions)
        x = self.model.prepare(batch, self.preparation)
        return batch, x.pin_memory() if self.model.device.type == "cuda" else x


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Compute on as many threads as the store's plan says: sums differ in their last bits with another number."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
