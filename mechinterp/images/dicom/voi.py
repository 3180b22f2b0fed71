"""What a DICOM header wants shown as black and as white."""

from __future__ import annotations

import math
from typing import Any

from mechinterp.images.dicom.headers import numbers, of_frame, word


def header_window(header: Any, frame: int = 0) -> tuple[float, float] | None:
    """Return the values of black and white of the header's first window, after the modality's rescale.

    By function (DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3): ``LINEAR``, the default, runs from
    ``c − 0.5 − (w − 1)/2`` to ``c − 0.5 + (w − 1)/2``; ``LINEAR_EXACT`` from ``c − w/2`` to ``c + w/2``. A ``SIGMOID``
    is shown as the line with its centre's slope, which is ``LINEAR_EXACT``. Of a VOI look-up table the range it maps is
    taken, not its curve.

    Parameters
    ----------
    header
        What :func:`mechinterp.images.dicom.headers.read_header` returned.
    frame
        Number of the frame, from 0.

    Returns
    -------
    tuple of float or None
        ``None`` where the header has no window that can be meant.

    """
    macro = "FrameVOILUTSequence"
    centres = numbers(of_frame(header, frame, macro, "WindowCenter"))
    widths = numbers(of_frame(header, frame, macro, "WindowWidth"))
    if centres and widths:
        function = word(of_frame(header, frame, macro, "VOILUTFunction")) or "LINEAR"
        centre, width = centres[0], widths[0]
        if not (math.isfinite(centre) and math.isfinite(width)):
            return None
        if function == "LINEAR":
            centre, width = centre - 0.5, width - 1
        return (centre - width / 2, centre + width / 2) if width > 0 else None
    table = next(iter(header.get("VOILUTSequence") or ()), None)
    descriptor = numbers(None if table is None else table.get("LUTDescriptor"))
    if len(descriptor) == 3:
        entries, first = descriptor[0] or 2**16, descriptor[1]
        return (first, first + entries - 1) if entries > 1 else None
    return None
