"""``mechinterp study NAME``."""

from __future__ import annotations

import dataclasses
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from experiments.cli.console import ConsoleProgress, emit
from experiments.cli.options import DownloadFlag, JsonFlag, with_config
from experiments.studies.brain_encoding.config import BrainEncodingConfig
from experiments.studies.brain_mri.config import BrainMRIConfig
from experiments.studies.phantom.config import PhantomStudyConfig
from mechinterp.errors import ConfigError, nearest

if TYPE_CHECKING:
    from experiments.report import Report

STUDIES: dict[str, type] = {
    "brain-mri": BrainMRIConfig,
    "dr-screening": PhantomStudyConfig,
    "breast-cancer": PhantomStudyConfig,
    "brain-encoding": BrainEncodingConfig,
}


def _all_flags() -> type:
    """Return a dataclass with the fields of every study, none set: what is given is checked against the study named."""
    fields: dict[str, Any] = {}
    for config in dict.fromkeys(STUDIES.values()):
        takes = ", ".join(name for name, other in STUDIES.items() if other is config)
        for name, hint in get_type_hints(config, include_extras=True).items():
            kind, text = get_args(hint)[:2]
            if name in fields:
                others, earlier = get_args(fields[name])[:2]
                kind = _either(get_args(others)[0], kind)
                text = f"{earlier} [{takes}: {text}]" if earlier.partition(" [")[0] != text else earlier
            else:
                text = f"{text} [{takes}]" if len(set(STUDIES.values())) > 1 else text
            fields[name] = Annotated[kind | None, text]
    return dataclasses.make_dataclass(
        "StudyFlags", [(n, h, dataclasses.field(default=None)) for n, h in fields.items()]
    )


def _either(earlier: Any, kind: Any) -> Any:
    """Return what a flag takes that two studies have: the words of both, where each names its own."""
    if get_origin(earlier) is Literal and get_origin(kind) is Literal:
        return operator.getitem(Literal, (*get_args(earlier), *get_args(kind)))
    return kind


@with_config(_all_flags())
def run(
    name: Annotated[str, typer.Argument(help=", ".join(STUDIES))],
    out: Annotated[Path, typer.Option("--out", help="folder of the run")],
    download: DownloadFlag = False,
    as_json: JsonFlag = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Run a whole case study: capture, decompose, attribute, intervene, and write the pages.

    brain-mri asks why a published tumour classifier calls slices of a tumour-free head "meningioma". dr-screening asks whether a
    model refers fundus photographs for their lesions, breast-cancer whether it calls mammograms suspicious for masses and
    calcifications: on rendered images or on a folder of your own. brain-encoding asks where in the visual field voxels look and
    which features of a network account for their responses. Given again with the same folder and settings, a study goes on
    where it was interrupted.

    [bold]Examples[/bold]

      mechinterp study brain-mri --out runs/brain-mri

      mechinterp study dr-screening --quick --out runs/dr

      mechinterp study dr-screening --condition shortcut --out runs/dr-shortcut

      mechinterp study breast-cancer --quick --out runs/breast

      mechinterp study brain-encoding --quick --out runs/brain

      mechinterp study dr-screening --data eyes/ --model py:mine.py:build --weights mine.safetensors --out runs/mine
    """
    if name not in STUDIES:
        raise ConfigError(f"no study '{name}': {nearest(name, STUDIES)}")
    given = {key: value for key, value in settings.items() if value is not None}
    known = [field.name for field in dataclasses.fields(STUDIES[name])]
    for key in given:
        if key not in known:
            raise ConfigError(f"study {name} has no --{key.replace('_', '-')}: {nearest(key, known)}")
    if name == "brain-mri":
        answer = _brain_mri(out, given, download)
    else:
        study = _brain_encoding if name == "brain-encoding" else _phantom_study
        answer = _reported(out, study(name, out, given, download))
    emit(answer, "\n".join([*answer["answer"], answer["page"]]), as_json=as_json)


def _brain_mri(out: Path, given: dict[str, Any], download: bool) -> dict[str, Any]:
    from experiments.studies.brain_mri.study import run_brain_mri

    results = run_brain_mri(out, BrainMRIConfig(**given), download=download, progress=ConsoleProgress())
    return {
        "out": str(out),
        "page": str(out / "page" / "index.html"),
        "results": str(out / "results.json"),
        "answer": results["answer"],
        "claims": [{k: c[k] for k in ("statement", "verdict", "reasons")} for c in results["claims"]],
    }


def _brain_encoding(_name: str, out: Path, given: dict[str, Any], download: bool) -> Report:
    from experiments.studies.brain_encoding.study import run_brain_encoding

    return run_brain_encoding(out, BrainEncodingConfig(**given), download=download, progress=ConsoleProgress())


def _phantom_study(name: str, out: Path, given: dict[str, Any], download: bool) -> Report:
    from experiments.studies.breast_cancer import BREAST_CANCER
    from experiments.studies.dr_screening import DR_SCREENING
    from experiments.studies.phantom.study import run_phantom_study

    cases = {case.name: case for case in (DR_SCREENING, BREAST_CANCER)}
    return run_phantom_study(
        cases[name], out, PhantomStudyConfig(**given), download=download, progress=ConsoleProgress()
    )


def _reported(out: Path, report: Report) -> dict[str, Any]:
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
