"""What a capture is going to write, before it starts: its plan, the names of its files, and how two plans differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from mechinterp.files import jsonable, sha256_json
from mechinterp.images.image_set import ImageSet
from mechinterp.store.manifest import StoreManifest, site_folder
from mechinterp.store.selection import TokenSelection

if TYPE_CHECKING:
    from mechinterp.capturing import CaptureConfig
    from mechinterp.images.preparation import Preparation
    from mechinterp.models.vision_model import VisionModel


def plan_name(segment: int) -> str:
    """Return the file of a segment's plan."""
    return "plan.json" if segment == 0 else f"plan-{segment:05d}.json"


def receipt_name(shard: int) -> str:
    """Return the file of a shard's receipt."""
    return f"shards/{shard:05d}.json"


def tensor_name(site: str, shard: int) -> str:
    """Return the file of a shard's activations at one site."""
    return f"sites/{site_folder(site)}/{shard:05d}.safetensors"


def shards_of(plan: StoreManifest) -> range:
    """Return the numbers of the shards of a segment."""
    return range(plan.first_shard, plan.first_shard + -(-int(plan.images["n"]) // plan.shard_images))


def images_of(plan: StoreManifest, shard: int) -> range:
    """Return the positions in the store of the images of one shard of a segment."""
    first = plan.first_image + (shard - plan.first_shard) * plan.shard_images
    return range(first, min(first + plan.shard_images, plan.first_image + int(plan.images["n"])))


def plan_of(model: VisionModel, images: ImageSet, preparation: Preparation, config: CaptureConfig) -> StoreManifest:
    """Return the plan of a capture: everything that decides the bytes it writes."""
    selection: TokenSelection = config.selection
    return StoreManifest(
        model={
            "spec": model.spec,
            "weights": model.weights,
            "weights_hash": model.weights_hash,
            "trained": model.trained,
            "class_names": list(model.class_names),
            "contract": jsonable(asdict(model.contract)),
        },
        preparation=preparation.to_json(),
        images={
            "name": images.name,
            "n": len(images),
            "ids_hash": sha256_json([images.ids, images.labels, images.groups, images.splits]),
            "scale_hash": sha256_json(images.scale),
            "source": dict(images.source),
            "licence": images.licence,
            "units_are_patients": images.units_are_patients,
        },
        sites={name: selection.stored(model.site(name)) for name in config.sites},
        dtype=config.dtype,
        batch_size=config.batch_size,
        shard_images=config.shard_images(model),
        outputs=config.outputs,
        threads=config.threads or torch.get_num_threads(),
        device=model.device.type,
        selection=selection.to_json(),
    )


def together(images: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Describe the images of all segments as one set; of several, no one source can open it again."""
    if len(images) == 1:
        return dict(images[0])
    licences = list(dict.fromkeys(part["licence"] for part in images))
    return {
        "name": " + ".join(str(part["name"]) for part in images),
        "n": sum(int(part["n"]) for part in images),
        "ids_hash": sha256_json([part["ids_hash"] for part in images]),
        "scale_hash": sha256_json([part["scale_hash"] for part in images]),
        "source": {},
        "licence": licences[0] if len(licences) == 1 else "; ".join(str(licence or "unknown") for licence in licences),
        "units_are_patients": all(part["units_are_patients"] for part in images),
    }


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return the settings that differ, in words such as ``model weights_hash``."""
    found = []
    for key in sorted({*ours, *theirs}):
        a, b = jsonable(ours.get(key)), jsonable(theirs.get(key))
        if a == b:
            continue
        inner = (
            sorted(k for k in {*a, *b} if a.get(k) != b.get(k)) if isinstance(a, dict) and isinstance(b, dict) else []
        )
        found += [f"{key} {k}" for k in inner] or [key]
    return found
