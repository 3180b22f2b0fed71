"""``mechinterp study NAME``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from experiments.cli.console import ConsoleProgress, emit
from experiments.cli.options import DownloadFlag, JsonFlag, with_config
from experiments.studies.brain_mri_config import BrainMRIConfig
from experiments.studies.phantom_study_config import PhantomStudyConfig
from mechinterp.errors import ConfigError, nearest

STUDIES: dict[str, type] = {"brain-mri": BrainMRIConfig, "dr-screening": PhantomStudyConfig}


def _all_flags() -> type:
    """Return a dataclass with the fields of every study, none set: what is given is checked against the study named."""
    fields: dict[str, Any] = {}
    for config in dict.fromkeys(STUDIES.values()):
        takes = ", ".join(name for name, other in STUDIES.items() if other is config)
        for name, hint in get_type_hints(config, include_extras=True).items():
            kind, text = get_args(hint)[:2]
            if name in fields:
                _, earlier = get_args(fields[name])[:2]
                text = f"{earlier} [{takes}: {text}]" if earlier.partition(" [")[0] != text else earlier
            else:
                text = f"{text} [{takes}]" if len(set(STUDIES.values())) > 1 else text
            fields[name] = Annotated[kind | None, text]
    return dataclasses.make_dataclass(
        "StudyFlags", [(n, h, dataclasses.field(default=None)) for n, h in fields.items()]
    )


@with_config(_all_flags())
def run(
    name: Annotated[str, typer.Argument(help="brain-mri or dr-screening")],
    out: Annotated[Path, typer.Option("--out", help="folder of the run")],
    download: DownloadFlag = False,
    as_json: JsonFlag = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Run a whole case study: capture, decompose, attribute, intervene, and write the pages.

    brain-mri asks why a published tumour classifier calls slices of a tumour-free head "meningioma". dr-screening asks whether a
    model refers fundus photographs for their lesions, on rendered photographs or on a folder of your own. Given again with the
    same folder and settings, a study goes on where it was interrupted.

    [bold]Examples[/bold]

      mechinterp study brain-mri --out runs/brain-mri

      mechinterp study dr-screening --quick --out runs/dr

      mechinterp study dr-screening --condition shortcut --out runs/dr-shortcut

      mechinterp study dr-screening --data eyes/ --model py:mine.py:build --weights mine.safetensors --out runs/mine
    """
    if name not in STUDIES:
        raise ConfigError(f"no study '{name}': {nearest(name, STUDIES)}")
    given = {key: value for key, value in settings.items() if value is not None}
    known = [field.name for field in dataclasses.fields(STUDIES[name])]
    for key in given:
        if key not in known:
            raise ConfigError(f"study {name} has no --{key.replace('_', '-')}: {nearest(key, known)}")
    answer = _brain_mri(out, given, download) if name == "brain-mri" else _phantom_study(name, out, given, download)
    emit(answer, "\n".join([*answer["answer"], answer["page"]]), as_json=as_json)


def _brain_mri(out: Path, given: dict[str, Any], download: bool) -> dict[str, Any]:
    from experiments.studies.brain_mri import run_brain_mri

    results = run_brain_mri(out, BrainMRIConfig(**given), download=download, progress=ConsoleProgress())
    return {
        "out": str(out),
        "page": str(out / "page" / "index.html"),
        "results": str(out / "results.json"),
        "answer": results["answer"],
        "claims": [{k: c[k] for k in ("statement", "verdict", "reasons")} for c in results["claims"]],
    }


def _phantom_study(name: str, out: Path, given: dict[str, Any], download: bool) -> dict[str, Any]:
    from experiments.studies.dr_screening import DR_SCREENING
    from experiments.studies.phantom_study import run_phantom_study

    cases = {DR_SCREENING.name: DR_SCREENING}
    report = run_phantom_study(
        cases[name], out, PhantomStudyConfig(**given), download=download, progress=ConsoleProgress()
    )
    verdicts = {element: verdict.to_json() for element, verdict in report.verdicts.items()}
    lines = [f"{element}: {verdict['word']}" for element, verdict in verdicts.items()]
    return {
        "out": str(out),
        "page": str(out / "report.html"),
        "results": str(out / "report.json"),
        "answer": [*report.answer, *lines],
        "verdicts": verdicts,
        "strict": report.strict(),
    }
