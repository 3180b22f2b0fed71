"""``mechinterp phantoms KIND``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.cli.console import ConsoleProgress, emit
from experiments.cli.options import JsonFlag, SeedFlag
from mechinterp.errors import ConfigError

SHEET, SHEET_IMAGES, SHEET_COLUMNS = "contact-sheet.png", 24, 6


def run(
    kind: Annotated[str, typer.Argument(help="fundus, mammogram, chest or stimuli")],
    out: Annotated[Path, typer.Option("--out", help="folder for images, masks, metadata.csv and dataset.yaml")],
    n: Annotated[
        int | None,
        typer.Option("--n", min=1, help="number of images, rounded up to whole patients; or give --patients"),
    ] = None,
    patients: Annotated[int | None, typer.Option("--patients", help="number of patients (200)")] = None,
    images_per_patient: Annotated[
        int | None, typer.Option("--images-per-patient", help="images of each patient (2)")
    ] = None,
    size_px: Annotated[
        int | None, typer.Option("--size", "--size-px", help="height in pixels (fundus 96, stimuli 128, others 256)")
    ] = None,
    extent_mm: Annotated[
        float | None, typer.Option("--extent-mm", help="height in millimetres; of stimuli: --set extent_deg=20")
    ] = None,
    validation_share: Annotated[
        float | None, typer.Option("--validation-share", help="share of the patients in the validation split (0.15)")
    ] = None,
    test_share: Annotated[
        float | None, typer.Option("--test-share", help="share of the patients in the test split (0.25)")
    ] = None,
    contrast_correlation: Annotated[
        float | None,
        typer.Option(
            "--contrast-correlation", help="fundus: rank correlation of a lesion's contrast with the lesions' area"
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="a further setting of the kind's study, NAME=VALUE; can be repeated"),
    ] = None,
    seed: SeedFlag = 0,
    shortcut: Annotated[
        str | None,
        typer.Option(
            "--shortcut",
            help="plant a mark that goes with the label. fundus: camera_tag, ruler_mark; mammogram: skin_marker, site_tag, "
            "view_marker; chest: portable_tag, pacemaker, side_tag; stimuli: photodiode_patch, fixation_dot",
        ),
    ] = None,
    shortcut_train: Annotated[
        float, typer.Option("--shortcut-train", help="its correlation with the label in training")
    ] = 0.9,
    shortcut_test: Annotated[
        float, typer.Option("--shortcut-test", help="its correlation with the label in the test")
    ] = 0.0,
    masks: Annotated[bool, typer.Option("--masks/--no-masks", help="also write the mask of every structure")] = True,
    contact_sheet: Annotated[
        bool, typer.Option("--contact-sheet", help=f"also write {SHEET}: the first {SHEET_IMAGES} images side by side")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Render images with known truth: parameters in mm and mm², masks, patients, splits, and a shortcut if one is asked for.

    What is written opens by `--images OUT`. Without files, `--images phantom:KIND` renders the same images on demand.

    [bold]Examples[/bold]

      mechinterp phantoms fundus --n 100 --out eyes/

      mechinterp phantoms mammogram --n 200 --size 384 --contact-sheet --out breasts/

      mechinterp phantoms chest --shortcut portable_tag --shortcut-train 0.9 --shortcut-test -0.2 --out chests/

      mechinterp phantoms stimuli --patients 60 --set viewing_distance_mm=900 --no-masks --out stimuli/
    """
    from mechinterp.phantoms.datasets import draw_phantoms, phantom_kind, study_of

    given: dict[str, Any] = {
        "patients": patients,
        "images_per_patient": images_per_patient,
        "size_px": size_px,
        "extent_mm": extent_mm,
        "validation_share": validation_share,
        "test_share": test_share,
        "contrast_correlation": contrast_correlation,
        "seed": seed,
    }
    chosen = {name: value for name, value in given.items() if value is not None} | _parsed(settings or [])
    of_kind = phantom_kind(kind)
    if n is not None:
        if patients is not None:
            raise ConfigError("--n and --patients both say how many: give one")
        each = int(chosen.get("images_per_patient", of_kind.study().images_per_patient))
        chosen["patients"] = max(4, -(-n // max(each, 1)))
    planted = None if shortcut is None else {"mark": shortcut, "train": shortcut_train, "test": shortcut_test}
    phantoms = draw_phantoms(of_kind, study_of(kind, chosen, planted))
    folder = phantoms.write_image_folder(out, masks=masks, progress=ConsoleProgress())
    found: dict[str, Any] = {"out": str(folder), "images": len(phantoms), "patients": len(set(phantoms.groups))}
    said = f"{len(phantoms)} images of {found['patients']} patients in {folder}"
    if contact_sheet:
        found["contact_sheet"] = str(_sheet(phantoms, folder))
        said += f", side by side in {SHEET}"
    emit(found, said, as_json=as_json)


def _parsed(settings: list[str]) -> dict[str, float | int]:
    found: dict[str, float | int] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise ConfigError(f"--set is '{text}': give NAME=NUMBER, such as extent_mm=200") from None
        if not equals:
            raise ConfigError(f"--set is '{text}': give NAME=NUMBER, such as extent_mm=200")
        found[name.strip().replace("-", "_")] = int(number) if number.is_integer() and "." not in value else number
    return found


def _sheet(phantoms: Any, folder: Path) -> Path:
    from mechinterp.files import write_bytes
    from mechinterp.phantoms.contact_sheet import contact_sheet
    from mechinterp.phantoms.image_folder import png

    shown = [phantoms.phantom(i) for i in range(min(len(phantoms), SHEET_IMAGES))]
    write_bytes(folder / SHEET, png(contact_sheet(shown, SHEET_COLUMNS)))
    return folder / SHEET
