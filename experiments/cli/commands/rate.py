"""``mechinterp rate RUN --out FOLDER``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.cli.console import ConsoleProgress, emit
from experiments.cli.options import JsonFlag, with_config
from experiments.dashboard.rating.items import RatingConfig

POOL = 40
"""Features of the frozen-random autoencoder from which wrong candidates are drawn too."""


@with_config(RatingConfig)
def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run")],
    out: Annotated[Path, typer.Option("--out", help="folder for rating.html, the page that raters are given")],
    as_json: JsonFlag = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Make a page on which people say what a feature's images have in common, without knowing what they look at.

    The page holds galleries without names or numbers, in an order of each rater's own, with galleries of random images planted among
    them, and galleries of an autoencoder that was never trained. It opens from disk and saves answers as a file. What each gallery was stays in RUN/ratings.

    [bold]Example[/bold]

      mechinterp rate runs/a --out to-the-raters --features 20
    """
    from experiments.analysis.stagewise import ensure_results
    from experiments.dashboard.rating.frozen import frozen_random_examples
    from experiments.dashboard.rating.items import make_plan
    from experiments.dashboard.rating.rating_page import write_rating
    from experiments.dashboard.run_view import RunView
    from experiments.studies.phantom.explorer import explorable
    from mechinterp.errors import MechinterpError

    progress = ConsoleProgress()
    folder = explorable(folder, progress=progress)
    ensure_results(folder, progress=progress)
    view = RunView.read(folder)
    config = RatingConfig(**settings)
    pool = max(config.frozen, POOL) if config.frozen > 0 else 0
    try:
        frozen = frozen_random_examples(view, pool, seed=config.seed, progress=progress) if pool else []
    except MechinterpError as error:  # the claim then says that this control was not run
        progress.note(f"no galleries of a frozen-random autoencoder: {error}")
        frozen = []
    plan = make_plan(view, config, frozen)
    page, key = write_rating(view, plan, out, progress=progress)
    emit(
        {"page": str(page), "key": str(key), "plan": plan.name, "items": len(plan.items)},
        f"{page}\n{len(plan.items)} galleries; give it to at least two people, then: mechinterp ratings {folder} FILE…",
        as_json=as_json,
    )
