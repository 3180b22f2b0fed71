"""CT windows by name: which HU are shown as black and as white."""

from __future__ import annotations

import math

from mechinterp.errors import ConfigError, nearest

# Centre and width in HU, as radiologists set them: Murphy et al., "Windowing (CT)", Radiopaedia.org, rID 52108. Where
# that article gives a range (subdural 50–100 / 130–300, soft tissue 20–60 / 350–400) its middle is taken.
NAMED_WINDOWS: dict[str, tuple[float, float]] = {
    "brain": (40, 80),
    "subdural": (75, 215),
    "stroke": (40, 40),
    "temporal-bone": (600, 2800),
    "soft-tissue": (40, 375),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "abdomen": (50, 400),
    "liver": (30, 150),
    "spine": (50, 250),
    "bone": (400, 1800),
}


def window_range(window: str) -> tuple[float, float]:
    """Return the values of black and of white that a window asks for.

    Parameters
    ----------
    window
        A name of :data:`NAMED_WINDOWS` (spaces and underscores read as dashes), or ``CENTRE,WIDTH`` in the pixels' unit.

    Raises
    ------
    ConfigError
        If there is no such window, or its numbers cannot be meant.

    Examples
    --------
    >>> window_range("lung")
    (-1350.0, 150.0)
    >>> window_range("40,80")
    (0.0, 80.0)

    """
    name = window.strip().lower().replace(" ", "-").replace("_", "-")
    if name in NAMED_WINDOWS:
        return centred(*NAMED_WINDOWS[name])
    try:
        centre, width = (float(part) for part in window.split(","))
    except ValueError:
        raise ConfigError(
            f"there is no window '{window}': {nearest(name, NAMED_WINDOWS)} (or give CENTRE,WIDTH as 40,80)"
        ) from None
    if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
        raise ConfigError(f"window '{window}' cannot be meant: the width must be a positive number")
    return centred(centre, width)


def centred(centre: float, width: float) -> tuple[float, float]:
    """Return the range of a centre and a width."""
    return centre - width / 2, centre + width / 2
