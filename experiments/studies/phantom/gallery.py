"""A feature's pictures in a report: where it is strongest, and where it is merely active, with its map painted over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from experiments.report import ReportFigure
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.figures import HEAT, as_text, themed_figure
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.picture_figures import picture_url
from mechinterp.store.reader import ActivationStore
from sparse_autoencoders import Gallery

STRONGEST, RANDOM = 4, 4
TALLEST_PX = 160
_OPACITY, _GAP = 0.55, 0.06


def gallery_figure(
    model: VisionModel, images: ImageSet, store: ActivationStore, encoder: FeatureEncoder, gallery: Gallery,
    feature: int, heading: str, text: str,
) -> ReportFigure:  # fmt: skip
    """Return one row of pictures: the strongest images of a feature, then some drawn from all in which it is active.

    Parameters
    ----------
    model, images, store, encoder
        What the feature is of.
    gallery
        Its examples.
    feature
        Its number.
    heading, text
        Of the figure.

    """
    strongest = gallery.activation.of(feature)[:STRONGEST]
    drawn = gallery.random.of(feature)[:RANDOM]
    shown = [*strongest, *drawn]
    positions = np.array([image for image, _, _ in shown], dtype=np.int64)
    maps = gallery.maps(encoder, store, feature, np.unique(positions))
    at = {int(image): k for k, image in enumerate(np.unique(positions))}
    top = float(maps.max(initial=0.0)) or 1.0
    preparation = Preparation.from_json(store.manifest.preparation)
    pictures = [
        painted(model, images, int(image), encoder.site, maps[at[int(image)]] / top, preparation) for image in positions
    ]
    values = [value for _, _, value in shown]
    return ReportFigure.of(heading, text, _row(pictures, values, len(strongest)))


def painted(
    model: VisionModel, images: ImageSet, position: int, site: str, shares: Float[NDArray[Any], " token"],
    preparation: Preparation,
) -> Float[NDArray[np.float64], "row column channel"]:  # fmt: skip
    """Return a picture with a feature's map over it, 0 to 1: unpainted where the feature is silent.

    Parameters
    ----------
    model, site
        Say where the map's cells lie.
    images, position
        Which picture.
    shares
        The feature's codes at the stored tokens, over its largest one.
    preparation
        How the picture became the model's input.

    """
    image = images[position]
    pixels = np.asarray(image.scaled(), dtype=np.float64)
    grey = pixels if pixels.ndim == 3 else pixels[..., None]
    rgb = np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else grey.copy()
    grid = model.site(site).grid
    if grid is not None and len(shares) >= grid.cells:
        _, placement = preparation.apply(image, model.contract)
        tiles = grid.boxes_mm(placement, (1.0, 1.0), tiles=True).round().astype(int)
        for (y0, x0, y1, x1), share in zip(tiles, shares[-grid.cells :], strict=True):
            if share > 0:
                cell = (slice(max(y0, 0), max(y1, 0)), slice(max(x0, 0), max(x1, 0)))
                opacity = _OPACITY * (0.35 + 0.65 * float(share))
                rgb[cell] = (1 - opacity) * rgb[cell] + opacity * _heat(float(share))
    return _smaller(rgb)


def _heat(share: float) -> Float[NDArray[np.float64], " channel"]:
    """Return the colour of a value between 0 and 1 on the scale that every overlay uses."""
    stops = np.array([at for at, _ in HEAT])
    colours = np.array([[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for _, code in HEAT])
    return np.array([np.interp(share, stops, colours[:, c]) for c in range(3)])


def _smaller(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    from PIL import Image

    height, width = rgb.shape[:2]
    if height <= TALLEST_PX:
        return rgb
    picture = Image.fromarray(np.round(255 * np.clip(rgb, 0, 1)).astype(np.uint8))
    return np.asarray(picture.resize((round(width * TALLEST_PX / height), TALLEST_PX)), dtype=np.float64) / 255


def _row(pictures: Sequence[NDArray[np.float64]], values: Sequence[float], strongest: int) -> Any:
    """Return pictures side by side on one scale, with the feature's value under each."""
    aspect = max(p.shape[0] / p.shape[1] for p in pictures)
    lefts = [k * (1 + _GAP) + (4 * _GAP if k >= strongest else 0.0) for k in range(len(pictures))]
    layout_images = [
        {
            "source": picture_url(p, (0.0, 1.0)), "xref": "x", "yref": "y", "x": left, "y": 0, "sizex": 1,
            "sizey": p.shape[0] / p.shape[1], "xanchor": "left", "yanchor": "top", "sizing": "stretch",
        }
        for p, left in zip(pictures, lefts, strict=True)
    ]  # fmt: skip
    text: dict[str, Any] = {"showarrow": False, "xanchor": "left"}
    notes = [
        {**text, "x": left, "y": aspect, "yanchor": "top", "text": f"{value:.3g}", "font": {"size": 12}}
        for left, value in zip(lefts, values, strict=True)
    ]
    for first, title in ((0, "strongest"), (strongest, "drawn at random, weakest first")):
        if first < len(lefts):
            notes.append(
                {**text, "x": lefts[first], "y": 0, "yanchor": "bottom", "text": as_text(title), "font": {"size": 12}}
            )
    right = lefts[-1] + 1 if lefts else 1.0
    axis = {"visible": False, "fixedrange": True, "constrain": "domain"}
    trace = {
        "type": "scatter", "x": [0, right], "y": [0, aspect], "mode": "markers", "marker": {"opacity": 0},
        "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip
    layout = {
        "images": layout_images, "annotations": notes, "height": round(120 * aspect + 60),
        "xaxis": {**axis, "range": [0, right]},
        "yaxis": {**axis, "range": [aspect + 0.18, -0.18], "scaleanchor": "x", "scaleratio": 1},
        "margin": {"l": 0, "r": 0, "t": 4, "b": 4}, "showlegend": False,
    }  # fmt: skip
    return themed_figure([trace], layout)
