"""``localization_table``: maps by every method, thresholds from discovery patients, scores on confirmation patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from circuits.localization.config import LEVELS, Level, LocalizationConfig, MapConfig
from circuits.localization.estimates import Estimate, estimate
from circuits.localization.explained import Explained
from circuits.localization.lesions import Lesions, lesions_of
from circuits.localization.localizing import localize
from circuits.localization.map_methods import BASELINES, METHODS, methods_for
from circuits.localization.maps import RelevanceMaps
from circuits.localization.pixel_removal import RemovalScores, infidelity_of, remove_pixels, sensitivity_of
from circuits.localization.randomisation import likeness, randomise
from circuits.localization.scoring import ImageScores, parts_of, score_maps
from circuits.localization.shown_images import ShownImages, show_images
from circuits.localization.table import LocalizationTable, MethodRow, flags_of, ordered
from circuits.metrics import Measurable, as_metric
from mechinterp.errors import ConfigError, ImagesError, LeakageError, nearest
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress

MakeMaps = Callable[[VisionModel, ShownImages], RelevanceMaps]
Score = Float[NDArray[np.float64], " image"]
SENSITIVITY_IMAGES = 8


def localization_table(
    model: VisionModel,
    discovery: ImageSet,
    confirmation: ImageSet,
    metric: Measurable,
    *,
    truth: Sequence[str],
    methods: Sequence[str] | None = None,
    maps: Mapping[str, MakeMaps] | None = None,
    label_randomised: VisionModel | None = None,
    ground_truth: bool = False,
    levels: Sequence[Level] = LEVELS,
    config: LocalizationConfig | None = None,
    preparation: Preparation | None = None,
    thorough: bool = True,
    progress: Progress = SILENT,
) -> LocalizationTable:
    """Score every method's maps against masks, for faithfulness, and against randomised models, beside the baselines.

    Parameters
    ----------
    model
        The model.
    discovery, confirmation
        Sets with masks and no patient in common. Dice's threshold and the best method are chosen on the first alone; every
        number in the table is of the second. Images without a lesion are left out of both.
    metric
        What the maps explain, as :func:`localize` takes it; it must not know single images.
    truth
        Names of the masks whose union the maps should find.
    methods
        As :func:`localize` names them; by default all that the model can be explained by. The baselines are always there.
    maps
        Further rows: name → a function of a model and images, for example :func:`feature_maps` of an SAE.
    label_randomised
        A model of the same kind that learned shuffled labels.
    ground_truth
        True where masks are known by construction: a phantom.
    levels
        Among ``pixel``, ``token`` (tiles of the site's grid) and ``region`` (superpixels).
    config
        How.
    preparation
        How images are prepared.
    thorough
        False leaves out what no claim rests on: infidelity, sensitivity, and for the baselines (but a random order of deletion)
        all that takes pixels away or weights.
    progress
        Told of every step.

    Raises
    ------
    LeakageError
        If a patient is in both sets.
    ImagesError
        If a set has no masks, or none that holds a lesion.
    ConfigError
        If there is no such method or level.

    Examples
    --------
    >>> table = localization_table(
    ...     model, validation, test, logit("referable"), truth=["haemorrhages", "exudates"]
    ... )  # doctest: +SKIP
    >>> table.row("lrp").score("auprc").text  # doctest: +SKIP
    '0.55 (0.49 to 0.60)'

    """
    settings = config or LocalizationConfig()
    _check_patients(discovery, confirmation)
    named = {**_makers(model, methods, metric, settings), **_extra(maps)}
    wanted = [lv for lv in LEVELS if lv in levels]
    for lv in levels:
        if lv not in LEVELS:
            raise ConfigError(f"there is no level '{lv}': {nearest(lv, LEVELS)}")
    explained = Explained(model, as_metric(metric, model), _map_config(settings))
    grid = explained.site()[1]
    sets = [
        _Truth.of(model, images, truth, grid, wanted, settings, preparation) for images in (discovery, confirmation)
    ]
    # what a mean image is must not differ between the sets it stands in for
    explained = Explained(model, explained.metric, explained.config, sets[0].shown.x.mean(0))
    confirmed = sets[1]
    made: dict[str, tuple[RelevanceMaps, ImageScores, ImageScores]] = {}
    for name in progress.track(list(named), "maps and their scores"):
        found = [named[name](model, s.shown) for s in sets]
        scored = [score_maps(m, s.lesions, s.parts) for m, s in zip(found, sets, strict=True)]
        made[name] = (found[1], scored[0], scored[1])
    tested = {n: m[0] for n, m in made.items() if thorough or n == "random" or n not in BASELINES}
    removed = _removed(explained, tested, settings, progress)
    rows = {
        name: _row(
            name,
            model,
            named[name],
            explained,
            confirmed.shown,
            made,
            removed,
            label_randomised,
            settings,
            wanted,
            thorough=thorough,
        )
        for name in progress.track(list(named), "checks by random weights")
    }
    groups = (confirmed.shown.groups or ()) if confirmed.shown.units_are_patients else ()
    return LocalizationTable(
        model.name, explained.metric.name, tuple(truth), ordered(rows), len(confirmed.shown), len(set(groups)),
        float(np.nanmean(confirmed.lesions.share)), model.trained, ground_truth, {n: m[0] for n, m in made.items()},
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Truth:
    """The images of a set that hold a lesion, and where."""

    shown: ShownImages
    lesions: Lesions
    parts: dict[Level, Int[NDArray[np.int64], "image pixel"]]

    @classmethod
    def of(
        cls,
        model: VisionModel,
        images: ImageSet,
        names: Sequence[str],
        grid: Any,
        levels: Sequence[Level],
        settings: LocalizationConfig,
        preparation: Preparation | None,
    ) -> _Truth:
        # only so many images are rendered or read as can be needed, each patient's first ones first
        order = by_turns(images.groups or images.ids)
        chosen: list[int] = []
        for start in range(0, len(order), settings.most_images):
            part = order[start : start + settings.most_images]
            shown = show_images(model, images.subset(part), preparation=preparation)
            chosen += [part[k] for k in lesions_of(shown, names).present().tolist()]
            if len(chosen) >= settings.most_images:
                break
        if not chosen:
            raise ImagesError(
                f"no image of '{images.name}' has a lesion among {', '.join(names)}: nothing can be found"
            )
        shown = show_images(model, images.subset(chosen[: settings.most_images]), preparation=preparation)
        lesions = lesions_of(shown, names)
        return cls(shown, lesions, parts_of(shown, lesions, grid, levels))


def by_turns(groups: Sequence[Any]) -> list[int]:
    """Return the positions of images, first every patient's first, then every second."""
    seen: dict[Any, int] = {}
    turn = []
    for group in groups:
        seen[group] = seen.get(group, -1) + 1
        turn.append(seen[group])
    return [int(i) for i in np.argsort(turn, kind="stable")]


def _check_patients(discovery: ImageSet, confirmation: ImageSet) -> None:
    both = (set(discovery.groups or ()) & set(confirmation.groups or ())) - {None}
    if both:
        raise LeakageError(
            f"{len(both)} patients are in the discovery and in the confirmation set: thresholds would be chosen on whom "
            "they are scored on; put every patient into one"
        )


def _makers(
    model: VisionModel, methods: Sequence[str] | None, metric: Measurable, settings: LocalizationConfig
) -> dict[str, MakeMaps]:
    chosen = list(methods_for(model) if methods is None else methods)
    for name in chosen:
        if name not in METHODS:
            raise ConfigError(f"there is no method '{name}': {nearest(name, METHODS)}")

    def maker(name: str) -> MakeMaps:
        return lambda m, shown: localize(m, shown, metric, name, config=_map_config(settings))

    return {name: maker(name) for name in dict.fromkeys([*chosen, *BASELINES])}


def _extra(maps: Mapping[str, MakeMaps] | None) -> dict[str, MakeMaps]:
    for name in maps or {}:
        if name in METHODS:
            raise ConfigError(f"'{name}' is a method already: give your maps another name")
    return dict(maps or {})


def _map_config(settings: LocalizationConfig) -> MapConfig:
    return MapConfig(**{f.name: getattr(settings, f.name) for f in fields(MapConfig)})


def _removed(
    explained: Explained, maps: Mapping[str, RelevanceMaps], settings: LocalizationConfig, progress: Progress
) -> dict[str, RemovalScores]:
    if settings.faithful_images == 0:
        return {}
    return {
        name: remove_pixels(explained, m.subset(range(min(settings.faithful_images, len(m)))))
        for name, m in progress.track(list(maps.items()), "removing pixels")
    }


def _row(
    name: str,
    model: VisionModel,
    make: MakeMaps,
    explained: Explained,
    shown: ShownImages,
    made: Mapping[str, tuple[RelevanceMaps, ImageScores, ImageScores]],
    removed: Mapping[str, RemovalScores],
    label_randomised: VisionModel | None,
    settings: LocalizationConfig,
    levels: Sequence[Level],
    *,
    thorough: bool,
) -> MethodRow:
    maps, on_discovery, scores = made[name]
    baseline = name in BASELINES

    def mean(values: Score, unit: str = "1", of: ShownImages = shown) -> Estimate:
        return estimate(values, of, boot=settings.boot, seed=settings.seed, unit=unit)

    threshold = {lv: on_discovery.best_threshold(lv) for lv in levels}
    found: dict[str, dict[Level, Estimate]] = {
        "auprc": {lv: mean(scores.auprc[lv]) for lv in levels},
        "dice": {lv: mean(scores.dice_at(lv, threshold[lv])) for lv in levels},
        "pointing": {"pixel": mean(scores.pointing)},
        "distance": {"pixel": mean(scores.distance, shown.length_unit)},
        "mass": {"pixel": mean(scores.mass)},
    }
    reference = levels[0]
    gains = {
        other: mean(scores.auprc[reference] - made[other][2].auprc[reference]) for other in BASELINES if other != name
    }
    faithfulness, deletion_gain = {}, None
    if name in removed:
        part = shown.subset(range(len(removed[name].deletion)))
        faithfulness = {f.name: mean(getattr(removed[name], f.name), "logits", part) for f in fields(RemovalScores)}
        if thorough:
            faithfulness["infidelity"] = mean(infidelity_of(explained, maps.subset(range(len(part)))), of=part)
        if thorough and name in METHODS:
            few = maps.subset(range(min(SENSITIVITY_IMAGES, len(part))))
            faithfulness["sensitivity"] = mean(sensitivity_of(explained, METHODS[name], few), of=few.shown)
        if name != "random":
            deletion_gain = mean(removed[name].deletion - removed["random"].deletion, "logits", part)
    randomisation, labels = None, None
    if settings.random_images and (thorough or not baseline):
        few = maps.subset(range(min(settings.random_images, len(maps))))
        if not _is_constant(name):
            randomisation = randomise(
                model, make, few.shown, few, stages=settings.stages, limit=settings.alike, boot=settings.boot,
                independent=not baseline, seed=settings.seed,
            )  # fmt: skip
        if label_randomised is not None and not baseline:
            other = make(label_randomised, few.shown)
            labels = likeness(few, other, "shuffled labels", boot=settings.boot, seed=settings.seed)
    flags = flags_of(
        trained=model.trained, gains=gains, deletion_gain=deletion_gain, randomisation=randomisation, labels=labels,
        limit=settings.alike,
    )  # fmt: skip
    return MethodRow(
        name, baseline, maps.note, found, float(np.nanmean(on_discovery.auprc[reference])), threshold, gains,
        faithfulness, deletion_gain, randomisation, labels, flags,
    )  # fmt: skip


def _is_constant(name: str) -> bool:
    """Noise is drawn and the centre is the centre: neither reads a model, and its likeness to itself says nothing."""
    return name in {"centre", "random"}
