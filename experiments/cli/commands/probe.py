"""``mechinterp probe``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.console import ConsoleProgress, emit, emit_table
from experiments.cli.options import ActivationsFlag, JsonFlag, SeedFlag, SiteFlag

if TYPE_CHECKING:
    from experiments.analysis.probe_extras import Extra
    from experiments.run_directory import Run
    from mechinterp.images.image_set import ImageSet
    from mechinterp.progress import Progress
    from mechinterp.store.reader import ActivationStore
    from probes import LearningCurve, ProbeSweep
    from probes.regions import MaskOf

LEVELS = ("image", "region", "token", "sum")


def run(
    activations: ActivationsFlag,
    attribute: Annotated[
        str, typer.Option("--attribute", help="which attribute of the images to read; with `--level token`, which mask")
    ],
    site: SiteFlag = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="where the attributes are; default: where the store's images came from"),
    ] = None,
    level: Annotated[
        str,
        typer.Option(
            "--level", help="read off whole images, a region of each, single tokens, or an area summed over tokens"
        ),
    ] = "image",
    region: Annotated[
        str | None,
        typer.Option(
            "--region",
            help="which mask of the images: with `--level region` where tokens are pooled; with `--level sum` what the attribute "
            "is the area of, several with commas between",
        ),
    ] = None,
    pooling: Annotated[str, typer.Option("--pooling", help="with `--level image`: mean, max or active")] = "mean",
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="continuous, binary, ordinal or categorical; default: what the attributes say"),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="what is held out together: `group` (patients) or `split` (train, test, …)")
    ] = "group",
    untrained: Annotated[
        Path | None, typer.Option("--untrained", help="a store of the same images under `--weights random`: a control")
    ] = None,
    folds: Annotated[int, typer.Option("--folds", help="cross-validation folds; a patient is never in two")] = 5,
    shuffles: Annotated[
        int, typer.Option("--shuffles", help="permutations of patients for the p-value; 0 for none")
    ] = 200,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="also probe with fewer patients, at the best site")
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="also measure every mask of the images: MASK_area, MASK_contrast, MASK_entropy, …"
        ),
    ] = False,
    confounder: Annotated[
        list[str] | None,
        typer.Option("--confounder", help="an attribute that may be read instead, held fixed; can be repeated"),
    ] = None,
    sae: Annotated[
        Path | None, typer.Option("--sae", help="also ask how few features of this autoencoder read the attribute")
    ] = None,
    seed: SeedFlag = 0,
    as_json: JsonFlag = False,
) -> None:
    """Read a physical attribute off every site with a linear probe, beside its controls.

    Cross-validated by patient (by contiguous blocks for the slices of one volume); error in the attribute's unit. Writes the
    numbers as JSON, and a page with the profile over sites, calibration and controls.

    [bold]Examples[/bold]

      mechinterp probe --activations runs/a/activations --attribute lesion_area

      mechinterp probe --activations runs/a/activations --attribute exudate_contrast --level region --region exudates

      mechinterp probe --activations runs/a/activations --attribute exudates --level token --site stages.2 --json

      mechinterp probe --activations runs/a/activations --attribute lesion_area --level sum --region haemorrhages,exudates

      mechinterp probe --activations runs/a/activations --attribute exudates_area --measure --confounder exudates_contrast
    """
    from dataclasses import replace

    from experiments.analysis.measurements import probe_record
    from experiments.analysis.probe_extras import check_confounders, confounders_of, few_features_of
    from experiments.analysis.probe_page import write_probe_page
    from experiments.analysis.stagewise import images_of
    from experiments.analysis.store_cautions import cautions_of, named_patients
    from experiments.run_directory import Run
    from mechinterp.errors import ConfigError, nearest
    from mechinterp.files import write_json
    from mechinterp.store.reader import ActivationStore

    for flag, given, known in (("--level", level, LEVELS), ("--by", by, ("group", "split"))):
        if given not in known:
            raise ConfigError(f"{flag} is '{given}': {nearest(given, known)}")
    progress = ConsoleProgress()
    store = ActivationStore.open(activations)
    opened = images_of(store, images)
    cautions = cautions_of(store)
    for said in cautions:
        progress.note(said)
    if measure:
        from mechinterp.attributes.from_masks import attributes_from_masks

        measured = attributes_from_masks(opened, progress=progress)
        opened = replace(opened, attributes=measured.joined(opened.attributes))  # what was given goes before
    if level == "token" and (confounder or sae):
        raise ConfigError("--confounder and --sae are of whole images: they need another --level than token")
    if confounder:
        check_confounders(store, opened.attributes, attribute, confounder)
    settings: dict[str, Any] = {"seed": seed, "n_shuffles": shuffles, "folds": _folds(store, by, folds)}
    if kind:
        settings["kind"] = kind
    other = ActivationStore.open(untrained) if untrained else None
    masks_of = _masks_of(opened, level, region, attribute)
    sweep = _swept(store, opened, attribute, site, level, pooling, masks_of, other, settings, progress)
    mask_of = next(iter(masks_of.values()), None)
    if learning_curve and level == "sum":
        raise ConfigError("--learning-curve needs --level image or region")
    curve = _curve(store, opened, sweep, attribute, mask_of, pooling, seed, progress) if learning_curve else None
    extras: dict[str, Extra] = {}
    if confounder:
        best = sweep.best(attribute)
        extras["confounders"] = confounders_of(best, store, opened.attributes, confounder, seed=seed)
    if sae:
        pool: Any = pooling
        extras["few_features"] = few_features_of(
            sae, store, opened.attributes, attribute, pooling=pool, kind=kind, seed=seed, progress=progress
        )
    run_folder = Run.create(Path(activations).parent)
    # what was read off whole images is what the run's pages look for
    folder = run_folder.folder / "probes" / ("" if level == "image" else level)
    target = folder / f"{attribute}.json"
    found = {r.site: _record(probe_record(r), r, store.manifest.trained) for r in sweep.of(attribute)}
    with run_folder.stage(f"probe {attribute}", activations=str(activations), seed=seed) as record:
        write_json(target, found)
        page = write_probe_page(
            sweep, attribute, target.with_suffix(".html"), level=level, trained=store.manifest.trained, curve=curve,
            more=[shown for _, shown in extras.values()], cautions=cautions, patients=named_patients(store),
        )  # fmt: skip
        record.update(
            result=run_folder.relative(target), page=run_folder.relative(page), asked=_position(run_folder, attribute)
        )
    if as_json:
        emit(
            {
                "attribute": attribute, "level": level, "result": str(target), "page": str(page), "sites": found,
                "learning_curve": None if curve is None else vars(curve), "trained": store.manifest.trained, "cautions": cautions,
                **{name: record for name, (record, _) in extras.items()},
            },
            "", as_json=True,
        )  # fmt: skip
        return
    rows = [
        (
            name,
            f"{p['score_name']} {p['score']:.3f}",
            p["interval_note"] if not p["interval"] else f"{p['interval'][0]:.3f} to {p['interval'][1]:.3f}",
            "–" if p["mae"] is None else f"{p['mae']:.3g} {'levels' if p['kind'] == 'ordinal' else p['unit']}",
            "–" if p["p"] is None else f"{p['p']:.3g}",
            p["verdict"],
            "; ".join(f"{c['name']}: {'passed' if c['passed'] else 'FAILED'}" for c in p["controls"]),
        )
        for name, p in found.items()
    ]
    title = f"{attribute}" + ("" if store.manifest.trained else " – UNTRAINED model: no claim about it is met")
    emit_table(
        {}, title, ["site", "score", "95 % interval", "mean error", "p", "verdict", "controls"], rows, as_json=False
    )
    progress.note(f"page: {page}")


def _position(run: Run, attribute: str) -> int:
    """Return which of a run's probes one is: the first is what its report is about, however often it is run again."""
    stages = run.stages
    others = [name for name in stages if name.startswith("probe ") and name != f"probe {attribute}"]
    return int(stages.get(f"probe {attribute}", {}).get("asked", len(others) + 1))


def _folds(store: ActivationStore, by: str, folds: int) -> Any:
    from mechinterp.errors import ConfigError

    if by == "group":
        return folds
    splits = store.images["split"].tolist()
    if any(s is None for s in splits) or len(set(splits)) < 2:
        raise ConfigError(
            "--by split needs every image in one of two splits at least: give the images a column `split`"
        )
    return splits


def _masks_of(images: ImageSet, level: str, region: str | None, attribute: str) -> dict[str, MaskOf]:
    """Return what says where the region, or what a token-level attribute is the area of, lies in each image."""
    from mechinterp.errors import ConfigError, nearest

    if level == "image":
        if region:
            raise ConfigError(f"--region {region} needs --level region or sum")
        return {}
    given = attribute if level == "token" else region
    if given is None:
        said = "the tokens are pooled over" if level == "region" else f"'{attribute}' is the area of"
        raise ConfigError(f"--level {level} needs --region: which mask of the images {said}")
    names = [part.strip() for part in given.split(",")] if level == "sum" else [given]
    seen: set[str] = set()
    for i in range(len(images)):  # what is absent from an image may have no mask there
        if seen.issuperset(names):
            break
        seen |= set(images.masks(i))
    for name in names:
        if name not in seen:
            raise ConfigError(f"the images have no mask '{name}': {nearest(name, sorted(seen))}")

    def of(name: str) -> MaskOf:
        return lambda i: images.mask(i, name)

    return {name: of(name) for name in names}


def _swept(
    store: ActivationStore,
    images: ImageSet,
    attribute: str,
    site: str | None,
    level: str,
    pooling: Any,
    masks_of: dict[str, MaskOf],
    untrained: ActivationStore | None,
    settings: dict[str, Any],
    progress: Progress,
) -> ProbeSweep:
    from mechinterp.errors import ConfigError
    from probes import probe_sites, probe_token_sums, probe_tokens

    common: dict[str, Any] = {
        "sites": [site] if site else None, "images": images, "untrained": untrained, "progress": progress, **settings
    }  # fmt: skip
    if level == "sum":
        if settings.get("kind", "continuous") != "continuous":
            raise ConfigError(f"--kind {settings['kind']} needs another level: what tokens add up to is continuous")
        common.pop("kind", None)
        return probe_token_sums(store, images.attributes, attribute, masks_of, **common)
    mask_of = next(iter(masks_of.values()), None)
    if level == "token" and mask_of is not None:
        return probe_tokens(store, attribute, mask_of, **common)
    return probe_sites(store, images.attributes, attribute, pooling=pooling, mask_of=mask_of, **common)


def _curve(
    store: ActivationStore,
    images: ImageSet,
    sweep: ProbeSweep,
    attribute: str,
    mask_of: MaskOf | None,
    pooling: Any,
    seed: int,
    progress: Progress,
) -> LearningCurve:
    from mechinterp.errors import ConfigError
    from probes import learning_curve, pooled_activations, region_activations
    from probes.pooling import patients_of

    groups, are_patients = patients_of(store)
    if not are_patients or sweep.level == "token":
        raise ConfigError("--learning-curve counts patients: it needs some, and --level image or region")
    best = sweep.best(attribute)
    progress.note(f"learning curve at {best.site}")
    spacing: Any = images.spacing_mm
    x = (
        pooled_activations(store, best.site, pooling=pooling)
        if mask_of is None
        else region_activations(store, best.site, mask_of, spacing_mm=spacing)
    )
    kept = best.images
    return learning_curve(
        x[kept], best.truth, groups=None if groups is None else groups[kept], kind=best.kind, name=attribute, seed=seed
    )


def _record(record: dict[str, Any], result: Any, trained: bool) -> dict[str, Any]:
    """Return a probe's record with what a page of its own shows besides."""
    raw, claim = result.to_json(), result.claim(trained=trained)
    more = {k: raw[k] for k in ("calibration", "description", "selectivity", "levels", "fold")}
    return {**record, **more, "verdict": claim.verdict, "reasons": list(claim.reasons)}
