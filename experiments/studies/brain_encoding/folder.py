"""A user's own recordings: a folder of stimuli, the responses to them, and which voxels they are of.

::

    scans/
      images/…
      metadata.csv      file_name; optionally group (session, or what shows the same thing), split, label, attributes
      responses.npy     stimulus × repeat × voxel (or stimulus × voxel), in the order of metadata.csv
      responses.csv     instead: file_name and one column a voxel; a stimulus shown n times has n rows
      voxels.csv        voxel, region, and optionally subject: one row for each voxel, in order

"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from experiments.studies.brain_encoding.config import BrainEncodingConfig
from experiments.studies.brain_encoding.experiment import (
    NOISE_REGION,
    TEST_SHARE,
    VALIDATION_SHARE,
    Experiment,
    planted_responses,
)
from mechinterp.errors import ConfigError, ImagesError
from mechinterp.images.image_set import ImageSet
from mechinterp.progress import Progress

FEWEST_GROUPS = 60
LAYOUT = "give metadata.csv, responses.npy (stimulus × repeat × voxel) or responses.csv, and voxels.csv, as docs/studies.md shows"


def recorded_experiment(config: BrainEncodingConfig, progress: Progress) -> Experiment:
    """Open a user's folder and divide its stimuli.

    Raises
    ------
    ConfigError
        If the images' extent in degrees is not given.
    ImagesError
        If a file is missing, its numbers do not belong to the stimuli, or there are too few of them.

    """
    from mechinterp.images.opening import open_images

    if config.extent_deg is None:
        raise ConfigError("--data without --extent-deg: say how many degrees of visual angle an image's side is")
    root = Path(str(config.data))
    images = open_images(str(root), progress=progress)
    responses = _responses(root, images)
    region, subject = _voxels(root, responses.shape[2])
    shapes = {images[i].pixels.shape[:2] for i in range(min(3, len(images)))}
    if len(shapes) > 1:
        raise ImagesError(
            f"{root} has stimuli of {len(shapes)} sizes: receptive fields need all of one size, as they were shown"
        )
    notes = [f"The images' side was taken as {config.extent_deg:g}° of visual angle, and their middle as fixation."]
    groups = images.groups
    if groups is None or any(g is None for g in groups):
        notes.append("The folder names no groups of stimuli (column `group`): every stimulus was counted as one.")
        groups = images.ids
    units = np.asarray(groups, dtype=object)
    fit, check, confirm = _parts(root, images, units, config.seed)
    responses = planted_responses(responses, config)
    return Experiment(
        images, responses, region, subject, units, fit, check, confirm, config.extent_deg, None, tuple(notes)
    )


def _responses(root: Path, images: ImageSet) -> Float[NDArray[np.float64], "image repeat voxel"]:
    if (root / "responses.npy").is_file():
        try:
            found = np.asarray(np.load(root / "responses.npy", allow_pickle=False), dtype=np.float64)
        except (ValueError, EOFError) as error:
            raise ImagesError(f"{root / 'responses.npy'} is no array of numbers ({error}): {LAYOUT}") from None
        found = found[:, None] if found.ndim == 2 else found
        if found.ndim != 3 or len(found) != len(images):
            raise ImagesError(
                f"{root / 'responses.npy'} has shape {found.shape} for {len(images)} stimuli: give stimulus × repeat × voxel, in "
                "the order of metadata.csv"
            )
    elif (root / "responses.csv").is_file():
        found = _from_table(root / "responses.csv", images)
    else:
        raise ImagesError(f"{root} has no responses: {LAYOUT}")
    missing = int((~np.isfinite(found)).sum())
    if missing:
        raise ImagesError(
            f"{missing} responses of {root} are missing (NaN): keep the stimuli that all voxels answered, or one subject a folder"
        )
    return found


def _from_table(path: Path, images: ImageSet) -> Float[NDArray[np.float64], "image repeat voxel"]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if len(rows) < 2 or rows[0][0] != "file_name":
        raise ImagesError(f"{path} does not begin with the column file_name: {LAYOUT}")
    by_image: dict[str, list[list[float]]] = {name: [] for name in images.ids}
    for number, row in enumerate(rows[1:], start=2):
        if row[0] not in by_image:
            raise ImagesError(
                f"line {number} of {path} names '{row[0]}', which is no stimulus of metadata.csv: {LAYOUT}"
            )
        try:
            by_image[row[0]].append([float(cell) for cell in row[1:]])
        except ValueError as error:
            raise ImagesError(f"line {number} of {path} holds no number ({error}): mend it") from None
    shapes = {(len(shown), len(row)) for shown in by_image.values() for row in shown} | {
        (0, 0) for shown in by_image.values() if not shown
    }
    if len(shapes) != 1:
        repeats = sorted({n for n, _ in shapes})
        raise ImagesError(
            f"{path} shows its stimuli {', '.join(map(str, repeats))} times: give every stimulus of metadata.csv as often as the "
            "others, and as many voxels in every row"
        )
    return np.array([by_image[name] for name in images.ids])


def _voxels(root: Path, n: int) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    path = root / "voxels.csv"
    if not path.is_file():
        raise ImagesError(f"{root} has no voxels.csv: {LAYOUT}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if len(rows) != n or not rows or "region" not in rows[0]:
        raise ImagesError(
            f"{path} describes {len(rows)} voxels, the responses are of {n}: give one row each, with a column region"
        )
    region = np.array([row["region"] for row in rows])
    if NOISE_REGION in region:
        raise ImagesError(
            f"{path} calls a region '{NOISE_REGION}': that name is kept for planted voxels; choose another"
        )
    return region, np.array([row.get("subject") or "subject" for row in rows])


Parts = tuple[
    Int[NDArray[np.int64], " fitted"], Int[NDArray[np.int64], " checked"], Int[NDArray[np.int64], " confirmed"]
]


def _parts(root: Path, images: ImageSet, units: NDArray[np.object_], seed: int) -> Parts:
    """Divide groups of stimuli into three: as the folder says, or drawn."""
    if images.splits is not None and set(images.splits) == {"train", "validation", "test"}:
        split = np.array(images.splits)
        found = tuple(np.flatnonzero(split == name) for name in ("train", "validation", "test"))
    else:
        names = np.random.default_rng(seed).permutation(np.array(sorted(set(map(str, units)))))
        ends = np.round(np.cumsum([TEST_SHARE, VALIDATION_SHARE]) * len(names)).astype(int)
        last, middle = set(names[: ends[0]]), set(names[ends[0] : ends[1]])
        part = np.array([2 if str(u) in last else 1 if str(u) in middle else 0 for u in units])
        found = tuple(np.flatnonzero(part == k) for k in range(3))
    counts = [len(set(map(str, units[p]))) for p in found]
    if sum(counts) < FEWEST_GROUPS or min(counts) < FEWEST_GROUPS // 10:
        raise ImagesError(
            f"{root} has {' + '.join(map(str, counts))} groups of stimuli to fit, check and confirm on: the study needs "
            f"{FEWEST_GROUPS}, and {FEWEST_GROUPS // 10} in each part"
        )
    return found[0], found[1], found[2]
