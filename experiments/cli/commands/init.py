"""``mechinterp init``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.console import ConsoleProgress
from experiments.cli.options import ModelFlag

if TYPE_CHECKING:
    from mechinterp.images.image_set import ImageSet
    from mechinterp.models.vision_model import VisionModel

_MOST_NAMED = 12
_MOST_ACTIVE = 32
_LOOKED_AT = 24  # images, evenly over the set, for the names of their masks
_NARROWEST = 8  # channels; a map of fewer holds answers, not what they are made of
_CHANNELS_A_FEATURE = 8  # with k near the width, principal components hold as much, and features say nothing more

_CONFIG = """\
# An analysis of {model}, from images to report: `mechinterp run {name}`.
# Each table is a command (`mechinterp COMMAND --help` tells all its flags), run in this order. A list gives a flag several
# times, true gives it without a value, args is what has no flag. Paths are relative to this file.
# Run it again after an interruption, or after a change further down: what is finished is not made anew.

[capture]
model = {model}
{weights}images = {images}
fit = "pad"  # in their proportions, with black borders; stretch, crop or model: as the model was trained
{sites}outputs = true  # the logits too: pages and circuits need them
out = "{run}/activations"

[train-sae]
activations = "{run}/activations"
site = {site}  # one of those captured
arch = "batchtopk"  # or topk, jumprelu, matryoshka, gated, …
k = {k}  # active features a token
expansion = 4  # dictionary size as a multiple of the site's width
seeds = "0,1,2"  # what recurs over seeds is worth a name
out = "{run}/saes"

{probes}
# What a report asks for: task, user, goals and elements may be given as flags; see `mechinterp report --help`.
[report]
args = ["{run}"]

[dashboard]
args = ["{run}"]
export = "{run}/page"
"""


def run(
    config: Annotated[Path, typer.Argument(help="where to write it")] = Path("study.toml"),
    model: ModelFlag = "py:my_model.py:build",
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="safetensors file or state dict of the model; `random` for an untrained one"),
    ] = None,
    images: Annotated[Path, typer.Option("--images", help="folder of images, as `mechinterp capture` takes it")] = Path(
        "scans"
    ),
    attribute: Annotated[
        str | None,
        typer.Option(
            "--attribute",
            help="the attribute that the report is to be about, of the images or measured from their masks (MASK_area, …); "
            "default: the first",
        ),
    ] = None,
) -> None:
    """Write a commented config file of a whole analysis, to be edited and then run by `mechinterp run`.

    Given a model that is there, it names the model's sites; given images that are there, their attributes.

    [bold]Examples[/bold]

      mechinterp init study.toml --model py:my_model.py:build --images scans/

      mechinterp init study.toml --model py:my_model.py:build --images scans/ --attribute lesion_area
    """
    from mechinterp.errors import ConfigError
    from mechinterp.files import write_bytes

    if config.exists():
        raise ConfigError(f"{config} is there already: give another name, or remove it")
    progress = ConsoleProgress()
    loaded, opened = _loaded(model, weights, progress), _opened(images, progress)
    sites, others = _sites(loaded)
    text = _CONFIG.format(
        name=config.name,
        model=json.dumps(model),
        weights=f"weights = {json.dumps(weights)}\n" if weights else "",
        images=json.dumps(str(images)),
        run=f"runs/{config.stem}",
        sites=_line(sites, others),
        site=json.dumps(sites[-1]),
        k=_active(loaded, sites[-1]),
        probes=_probes(opened, f"runs/{config.stem}", attribute),
    )
    for sentence in _looked_at(loaded, opened):
        progress.note(sentence)
    write_bytes(config, text.encode())
    progress.note(f"written: {config}; look through it, then `mechinterp run {config}`")


def _loaded(model: str, weights: str | None, progress: ConsoleProgress) -> VisionModel | None:
    from mechinterp.errors import MechinterpError
    from mechinterp.models.loading import load_model

    try:
        return load_model(model, weights or (None if model.startswith(("py:", "onnx:")) else "random"))
    except MechinterpError as error:
        progress.note(f"the file names no sites yet, since the model cannot be loaded: {error}")
        return None


def _opened(images: Path, progress: ConsoleProgress) -> ImageSet | None:
    from mechinterp.errors import MechinterpError
    from mechinterp.images.opening import open_images

    try:
        return open_images(images)
    except MechinterpError as error:
        progress.note(f"the file names no attributes yet, since the images cannot be opened: {error}")
        return None


def _active(model: VisionModel | None, site: str) -> int:
    """Return how many features of a token may be active: few beside the site's width."""
    if model is None:
        return _MOST_ACTIVE
    return max(4, min(_MOST_ACTIVE, model.site(site).width // _CHANNELS_A_FEATURE))


def _looked_at(model: VisionModel | None, images: ImageSet | None) -> list[str]:
    """Return what the images lack for a whole report, a sentence each."""
    from mechinterp.errors import MechinterpError
    from mechinterp.images.labels import words_of
    from mechinterp.images.preparation import Preparation
    from mechinterp.images.proportions import note_of_proportions
    from mechinterp.statistics.bootstrap import FEWEST_GROUPS

    if images is None:
        return []
    found = list(images.notes)
    if model is not None:
        try:
            found += filter(None, [note_of_proportions(images, model.contract, Preparation())])
        except MechinterpError as error:
            found.append(str(error))
    if images.groups is None:
        found.append(
            "no column of a metadata.csv says which images are one patient's (`group`): every image counts as a patient of its "
            "own"
        )
    if images.splits is None:
        found.append(
            "no column of a metadata.csv says which images the model was fitted to (`split`: train, test): all are judged alike"
        )
    several = model is not None and model.activation == "sigmoid"
    known = set(() if model is None else model.class_names)
    patients = len(set(images.groups or ()) - {None})
    if images.groups is not None and images.units_are_patients and patients < FEWEST_GROUPS:
        found.append(
            f"{patients} patient{'' if patients == 1 else 's'}: under {FEWEST_GROUPS}, no interval over patients is given"
        )
    if empty := _without_values(images):
        found.append(f"no value in any row: {', '.join(empty)}")
    labels = sorted({word for label in images.labels or () for word in words_of(label, several=several)})
    if labels and (missing := sum(label is None for label in images.labels or ())):
        found.append(
            f"{missing} of {len(images)} images carry no label: whether the model does its task is asked of the others"
        )
    if len(labels) == 1 and not several:
        found.append(
            f"every image that has a label is '{labels[0]}': with one class, whether the model does its task cannot be checked"
        )
    if not labels:
        found.append("no column `label` of a metadata.csv: whether the model does its task cannot be checked")
    elif model is not None and not (known & set(labels) if several else set(labels) <= known):
        found.append(
            f"the labels ({', '.join(labels[:6])}) are not the model's classes ({', '.join(list(model.class_names)[:6])}): whether "
            "it does its task cannot be checked; name them alike, as `build.class_names` of a file of yours"
        )
    return found


def _sites(model: VisionModel | None) -> tuple[list[str], list[str]]:
    """Return the two sites to capture and some others there are; a name to replace where no model is known."""
    if model is None:
        return ["blocks.5.hook_resid_post"], []
    placed = [s for s in model.sites.values() if s.grid is not None]
    wide = [s for s in placed if s.width >= _NARROWEST] or placed
    # a network's own modules may be called as the stages are
    streams = (
        [s.name for s in wide if s.name.endswith("hook_resid_post") or re.fullmatch(r"stages\.\d+", s.name)]
        or [s.name for s in wide if s.name != s.module]
        or [s.name for s in wide]
        or list(model.sites)
    )
    # the last is where a decision is nearly made, the one before it may still have finer cells
    return streams[-2:], streams[:-2][-_MOST_NAMED:]


def _line(sites: list[str], others: list[str]) -> str:
    said = f"or: {', '.join(others)}" if others else "`mechinterp sites MODEL` lists them"
    return f"site = {json.dumps(sites)}  # {said}\n"


def _without_values(images: ImageSet) -> list[str]:
    """Return the attributes that are missing on every image."""
    from numpy import isnan

    return [a.name for a in images.attributes if isnan(images.attributes.column(a.name)).all()]


def _probes(images: ImageSet | None, run: str, attribute: str | None) -> str:
    empty = [] if images is None else _without_values(images)
    given = [] if images is None else [(a.name, False) for a in images.attributes if a.name not in empty]
    measured = [] if images is None else [(name, True) for name in _measurable(images) if (name, False) not in given]
    # what a person wrote down or outlined is asked for sooner than what a reader found in headers
    own = [(name, False) for name, _ in given if images and images.attributes[name].measured.startswith("given in")]
    known = dict([*own, *measured, *given])
    if attribute is not None and images is not None:
        if attribute not in known:
            from mechinterp.errors import AttributeTableError, nearest

            raise AttributeTableError(f"no attribute '{attribute}': {nearest(attribute, known)}")
        # the first probe's claim is the report's
        known = {attribute: known[attribute], **known}
    if not known:
        return (
            "# Once the images have attributes (numeric columns of metadata.csv, units in dataset.yaml), read them off the sites:\n"
            f'# [[probe]]\n# activations = "{run}/activations"\n# attribute = "lesion_area"\n'
        )
    lines = []
    for position, (name, is_measured) in enumerate(list(known.items())[:_MOST_NAMED]):
        mark = "" if position == 0 else "# "
        lines += [
            f"{mark}[[probe]]",
            f'{mark}activations = "{run}/activations"',
            f"{mark}attribute = {json.dumps(name)}",
            *([f"{mark}measure = true  # from the masks"] if is_measured else []),
            "",
        ]
    return "\n".join(lines)


def _measurable(images: ImageSet) -> list[str]:
    """Return what `--measure` would take from the masks: each structure's area and contrast, then all else."""
    if images.read_masks is None or images.axes != 2:
        return []
    from mechinterp.attributes.from_masks import attributes_from_masks
    from mechinterp.errors import MechinterpError

    few = sorted({round(i * (len(images) - 1) / (_LOOKED_AT - 1)) for i in range(_LOOKED_AT)})
    try:
        names = attributes_from_masks(images.subset(few)).names
    except MechinterpError:  # without spacing, for example: probe --measure says why
        return []
    return sorted(names, key=lambda name: (not name.endswith("_area"), not name.endswith("_contrast")))
