"""``mechinterp edit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import JsonFlag, SeedFlag, SiteFlag
from mechinterp.errors import ConfigError


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="a run folder whose images have splits validation and test")
    ],
    shortcut: Annotated[
        str, typer.Option("--shortcut", help="attribute of 0 and 1: whether an image has the shortcut")
    ],
    target: Annotated[str, typer.Option("--target", help="the class that the decision is about; name or number")],
    method: Annotated[
        str, typer.Option("--method", help="ablate, clamp, project, leace, p-clarc or retrain-head")
    ] = "ablate",
    features: Annotated[
        str, typer.Option("--features", help="numbers of the features to edit, separated by commas")
    ] = "",
    label: Annotated[
        str | None, typer.Option("--label", help="the images' label that is the target; by default the class's name")
    ] = None,
    site: SiteFlag = None,
    sensitivity: Annotated[
        float, typer.Option("--sensitivity", help="operating point: the sensitivity of the model as it is")
    ] = 0.9,
    random: Annotated[
        int, typer.Option("--random", help="random edits of either kind beside it; fewer than 20 can carry no claim")
    ] = 20,
    out: Annotated[Path | None, typer.Option("--out", help="where it is written; default: RUN/edit")] = None,
    seed: SeedFlag = 0,
    as_json: JsonFlag = False,
) -> None:
    """Remove a shortcut, and say what that wins and costs.

    Its strength is chosen on the validation images, its bill measured on the test images. The model's weights stay.

    [bold]Examples[/bold]

      mechinterp edit runs/a --shortcut camera_tag --target referable --site stages.2 --features 45,6,61

      mechinterp edit runs/a --shortcut camera_tag --target referable --site stages.3 --method retrain-head --json
    """
    from circuits.acting.editing import EDIT_METHODS
    from experiments.analysis.acting_runs import edit_run, open_run, write_bill
    from experiments.run_directory import Run

    chosen = next((m for m in EDIT_METHODS if m == method), None)
    if chosen is None:
        raise ConfigError(f"--method is '{method}': it must be {', '.join(EDIT_METHODS)}")
    try:
        numbers = [int(f) for f in features.split(",") if f.strip()]
    except ValueError:
        raise ConfigError(f"--features is '{features}': give numbers separated by commas") from None
    found_run = Run.open(folder)
    where = out or folder / "edit"
    with found_run.stage(
        "edit", shortcut=shortcut, target=target, method=method, features=numbers, seed=seed
    ) as record:
        opened = open_run(found_run, site)
        edited, bill = edit_run(
            opened, shortcut, target, label=label, method=chosen, features=numbers, sensitivity=sensitivity,
            random=random, seed=seed, progress=ConsoleProgress(),
        )  # fmt: skip
        files = write_bill(edited, bill, where, opened.caution)
        record.update(result=found_run.relative(where))
    b, a = bill.before, bill.after
    rows = [
        ("worst group's loss", f"{b.worst.loss:.3f}", f"{a.worst.loss:.3f}"),
        ("accuracy without the shortcut", f"{b.clean_accuracy:.1%}", f"{a.clean_accuracy:.1%}"),
        ("calibration error", f"{b.calibration_error:.3f}", f"{a.calibration_error:.3f}"),
        ("sensitivity", f"{b.sensitivity:.1%}", f"{a.sensitivity:.1%}"),
        ("specificity", f"{b.specificity:.1%}", f"{a.specificity:.1%}"),
        ("attributes lost", "", ", ".join(c.attribute for c in bill.lost) or "none"),
    ]
    title = f"{bill.claim.verdict}: {bill.claim.statement}"
    emit_table({**bill.to_json(), "files": files}, title, ["", "as it is", "edited"], rows, as_json=as_json)
