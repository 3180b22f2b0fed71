"""``mechinterp ratings RUN FILE…``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import emit
from experiments.cli.options import JsonFlag


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="the run that `mechinterp rate` made the page from")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="what raters saved, JSON or CSV, one a rater")],
    as_json: JsonFlag = False,
) -> None:
    """Say whether people recognise the features they rated, beside chance and planted controls, and whether they agree.

    Writes ratings.json, ratings.csv and ratings.html into RUN/ratings. `mechinterp report RUN` then holds the claim under visual
    recognizability.

    [bold]Example[/bold]

      mechinterp ratings runs/a rating-1f03-AB.json rating-1f03-CD.csv
    """
    from experiments.dashboard.rating.answers import read_ratings
    from experiments.dashboard.rating.results import write_scores
    from experiments.dashboard.rating.scoring import read_key, score_ratings
    from experiments.dashboard.run_view import RunView

    view = RunView.read(folder)
    ratings = read_ratings(files)
    scores = score_ratings(ratings, read_key(folder, ratings[0].plan))
    trained = view.trained is True  # a run that does not say so is no trained one
    written = write_scores(folder, scores, trained=trained)
    claim = scores.claim(trained=trained)
    lines = [claim.statement, f"{claim.verdict}{': ' + '; '.join(claim.reasons) if claim.reasons else ''}"]
    lines += [f"  {control.name}: {control.detail}" for control in claim.controls]
    emit({**scores.to_json(trained=trained), "files": written}, "\n".join([*lines, *written.values()]), as_json=as_json)
