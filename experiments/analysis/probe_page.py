"""A page of one attribute's probes: where it can be read, beside which controls, and how far its numbers can be trusted."""

from __future__ import annotations

import shutil
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import plotly
import plotly.graph_objects as go

from mechinterp.attributes.table import Attribute
from mechinterp.files import write_bytes
from probes import calibration_figure, layer_profile_figure, learning_curve_figure, probe_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.dashboard.single_page import Shown
    from probes import LearningCurve, ProbeSweep
    from probes.results import ProbeResult

PLOTLY = "plotly.min.js"

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", Arial, sans-serif; color: #1c2733;
  background: #fff; max-width: 980px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 40px 0 4px; }
p { margin: 6px 0; } .muted { color: #556270; } .banner { background: #fdf0e6; border-left: 4px solid #D55E00; padding: 8px 12px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin-top: 8px; }
th, td { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid #e8ecf0; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.met { color: #00734f; font-weight: 600; white-space: nowrap; } .not-met { color: #a84300; font-weight: 600; white-space: nowrap; }
.figure { margin: 12px 0; } .scroll { overflow-x: auto; }
</style>
<script src="$plotly" defer></script>
</head>
<body>
<main>
$body
</main>
<footer class="muted"><p>For research only, not for diagnosis. A probe shows that an attribute can be read, not that the model
uses it.</p></footer>
</body>
</html>
""")

_READ_OFF = {
    "image": "Linear probes of whole images",
    "region": "Linear probes of a region of each image",
    "token": "Linear probes of single tokens",
    "sum": "Shares of each token&#39;s tile, summed over the image",
}


def write_probe_page(
    sweep: ProbeSweep,
    attribute: str,
    path: Path,
    *,
    level: str | None = None,
    trained: bool = True,
    curve: LearningCurve | None = None,
    more: Sequence[Shown] = (),
    cautions: Sequence[str] = (),
    patients: bool = True,
) -> Path:
    """Write one attribute's page, which opens from disk without a network.

    Parameters
    ----------
    sweep, attribute
        What was probed, and which attribute of it to show.
    path
        The page; Plotly's script is put beside it, once for all pages of a folder.
    level
        What a row of the activations was, where the sweep's own word does not say enough: ``sum`` for areas summed over
        tokens.
    trained
        False where the activations are those of random weights: the page then says so.
    curve
        Learning curve at the best site.
    more
        What else was asked for: at the end.
    cautions
        What the scores cannot know, above them.
    patients
        False where nobody named any, or the images are of one subject: those held out are then called images.

    """
    results = sweep.of(attribute)
    best = sweep.best(attribute)
    label = Attribute(attribute, best.unit).label
    what, units = _READ_OFF[level or sweep.level], "patients" if patients else "images"
    parts = [
        f"<h1>Reading {escape(label)}</h1>",
        f'<p class="muted">{what}; scores on {units} held out.</p>',
    ]
    if not trained:
        parts.append('<p class="banner">Untrained model (random weights): no claim about it is met.</p>')
    parts += [f'<p class="banner">{escape(said)}</p>' for said in cautions]
    parts += [_figure("profile", layer_profile_figure(results)), _table(results, trained)]
    parts += [
        f"<h2>At {escape(best.site)}</h2>",
        f"<p>{escape(best.text)}.</p>",
        f'<p class="muted">The site with the highest score, chosen on the same {units}: its score flatters a little.</p>',
        _figure("predictions", probe_figure(best)) if best.kind in {"continuous", "binary"} else "",
        _figure("calibration", calibration_figure(best)),
    ]
    if curve is not None:
        enough = curve.patients_for(0.9)
        said = f" {enough} {units} reach 90 % of the full score." if enough else ""
        parts += [
            "<h2>Sample efficiency</h2>", f"<p>Trained on fewer {units}, tested on the same ones.{said}</p>",
            _figure("learning-curve", learning_curve_figure(curve, attribute)),
        ]  # fmt: skip
    for i, shown in enumerate(more):
        parts += [
            f"<h2>{escape(shown.heading)}</h2>",
            f"<p>{escape(shown.text)}</p>",
            _figure(f"more-{i}", shown.figure),
        ]
    page = _PAGE.substitute(title=escape(f"Reading {label}"), plotly=PLOTLY, body="\n".join(parts))
    write_bytes(path, page.encode())
    script = path.with_name(PLOTLY)
    if not script.exists():
        shutil.copyfile(Path(plotly.__file__).parent / "package_data" / PLOTLY, script)
    return path


def _figure(name: str, figure: go.Figure) -> str:
    # `<` as an escape: no text of a figure can end the script
    spec = figure.to_json().replace("<", "\\u003c")
    height = figure.layout.height or 420
    return (
        f'<div class="figure" id="{name}" style="min-height:{height}px"></div>\n'
        f'<script type="application/json" id="{name}-data">{spec}</script>\n'
        "<script>document.addEventListener('DOMContentLoaded', () => {"
        f"const f = JSON.parse(document.getElementById('{name}-data').textContent);"
        f"Plotly.newPlot('{name}', f.data, f.layout, {{responsive: true, displaylogo: false}});}});</script>"
    )


def _table(results: tuple[ProbeResult, ...], trained: bool) -> str:
    head = ("site", "score", "95 % interval", "mean error", "p", "verdict", "controls")
    rows = []
    for r in results:
        claim = r.claim(trained=trained)
        ends = r.interval.ends
        unit = "levels" if r.kind == "ordinal" else "" if r.unit == "1" else r.unit
        cells = (
            escape(r.site),
            f"{r.score:.3f}",
            f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else escape(r.interval.reason),
            "–" if r.mae is None else f"{r.mae:.3g} {escape(unit)} (constant: {r.mae_of_mean:.3g})",
            "–" if r.p_value is None else f"{r.p_value:.3g}",
            f'<span class="{claim.verdict.replace(" ", "-")}">{claim.verdict}</span>',
            "<br>".join(f"{'✓' if c.passed else '✕'} {escape(c.name)}: {escape(c.detail)}" for c in r.controls)
            or "none run",
        )
        rows.append("<tr>" + "".join(f"<td{_number(k)}>{c}</td>" for k, c in enumerate(cells)) + "</tr>")
    heads = "".join(f'<th scope="col"{_number(k)}>{escape(h)}</th>' for k, h in enumerate(head))
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _number(column: int) -> str:
    return ' class="number"' if column in {1, 2, 4} else ""
