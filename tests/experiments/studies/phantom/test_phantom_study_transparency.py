"""How the autoencoders of a study's two sites are sized and trained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import experiments.studies.phantom.transparency as transparency
from experiments.studies.breast_cancer import BREAST_CANCER
from experiments.studies.dr_screening import DR_SCREENING
from experiments.studies.phantom.case import StudyCase
from experiments.studies.phantom.config import PhantomStudyConfig
from experiments.studies.phantom.transparency import expansion, site_sae
from mechinterp.progress import SILENT

TOKENS = {"stages.2": 456, "stages.3": 108}


def bench(case: StudyCase, **settings: Any) -> Any:
    config = PhantomStudyConfig(quick=True, **settings)
    return SimpleNamespace(
        case=case, config=config, sites=("stages.2", "stages.3"), run=SimpleNamespace(folder=Path("run")), progress=SILENT
    )  # fmt: skip


@pytest.mark.parametrize(("case", "last"), [(BREAST_CANCER, (42, 2, "saes")), (DR_SCREENING, (10, 4, "saes"))])
def test_a_study_says_how_often_its_last_site_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, case: StudyCase, last: tuple[int, int, str]
) -> None:
    given = {}

    def trained(_store: Any, *, site: str, config: Any, out: Path, progress: Any) -> list[None]:
        given[site] = (config.epochs, config.expansion, out.name)
        return [None]

    monkeypatch.setattr(transparency, "train_saes", trained)
    store: Any = SimpleNamespace(tokens=TOKENS.__getitem__)
    for site in TOKENS:
        site_sae(bench(case), store, site)
    assert given == {"stages.2": (10, 8, "saes-stages-2"), "stages.3": last}


def test_a_study_says_how_many_features_a_channel_gets_unless_the_settings_do() -> None:
    assert [expansion(bench(BREAST_CANCER), site) for site in TOKENS] == [8, 2]
    assert [expansion(bench(DR_SCREENING), site) for site in TOKENS] == [8, 4]
    assert [expansion(bench(BREAST_CANCER, expansion=4), site) for site in TOKENS] == [4, 4]
