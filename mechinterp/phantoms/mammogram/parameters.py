"""What a mammogram phantom is rendered from, in millimetres, and the rule that assesses it.

Sizes follow what is usual: a compressed breast is 30–80 mm thick and 60–120 mm deep, its fibroglandular share by area
5–80 % [1]_. Lesions are at the large end of what occurs, so that they can be seen at a millimetre per pixel.

References
----------
.. [1] Boyd et al. Quantitative classification of mammographic densities and breast cancer risk. JNCI 1995.

"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mechinterp.phantoms.quantities import check_parameters, quantity

VIEWS = ("CC", "MLO")
SCANNERS = ("alpha", "beta", "gamma")
CATEGORIES = ("negative", "benign", "probably benign", "suspicious", "highly suggestive")
CLUSTER_FROM, CLUSTER_WITHIN_MM, COARSE_FROM_MM = 5, 20.0, 1.2
SPICULATED_FROM, STELLATE_FROM, LARGE_FROM_MM = 0.25, 0.55, 10.0


@dataclass(frozen=True, kw_only=True)
class MammogramParameters:
    """Everything physical about one mammogram; a field's metadata holds its unit, range and what it touches.

    Places are given from the nipple: how far towards the chest wall, and how far up in the image. A place outside the
    breast is pulled in along that line.

    Raises
    ------
    ConfigError
        If a value is outside the range that can be rendered.

    """

    view: str = quantity("CC", "projection", kind="categorical", choices=VIEWS)
    laterality: str = quantity("left", "breast", kind="categorical", choices=("left", "right"))
    breast_depth_mm: float = quantity(85.0, "from the chest wall to the nipple", unit="mm", low=50.0, high=130.0)
    breast_height_mm: float = quantity(165.0, "along the chest wall (CC)", unit="mm", low=100.0, high=220.0)
    density_percent: float = quantity(
        25.0, "fibroglandular tissue's share of the breast's area", unit="%", low=3.0, high=85.0,
        structures=("breast", "nipple", "dense_tissue"),
    )  # fmt: skip
    compression_mm: float = quantity(
        55.0, "thickness of the compressed breast", unit="mm", low=25.0, high=95.0, structures=("breast", "nipple")
    )
    mass_diameter_mm: float = quantity(
        0.0, "diameter of a disc of the mass's area, 0 for none", unit="mm", low=0.0, high=45.0,
        structures=("mass", "spicules"),
    )  # fmt: skip
    mass_spiculation: float = quantity(
        0.0, "length of the spicules over the mass's diameter", low=0.0, high=1.0, structures=("spicules",)
    )
    mass_contrast: float = quantity(
        0.22, "brightness that the mass adds, full scale being 1", low=0.0, high=0.6, structures=("mass", "spicules")
    )
    mass_from_nipple_mm: float = quantity(
        45.0, "how far the mass lies towards the chest wall", unit="mm", low=5.0, high=110.0,
        structures=("mass", "spicules"),
    )  # fmt: skip
    mass_up_mm: float = quantity(
        10.0, "how far above the nipple it lies in the image", unit="mm", low=-70.0, high=70.0,
        structures=("mass", "spicules"),
    )  # fmt: skip
    calcification_count: int = quantity(
        0, "number of calcifications, 0 for none", low=0, high=60, structures=("calcifications",)
    )
    calcification_size_mm: float = quantity(
        0.7, "diameter of a disc of their mean area", unit="mm", low=0.2, high=3.0, structures=("calcifications",)
    )
    calcification_extent_mm: float = quantity(
        12.0, "diameter of the region they lie in", unit="mm", low=4.0, high=60.0, structures=("calcifications",)
    )
    calcification_contrast: float = quantity(
        0.75, "brightness that a calcification adds, full scale being 1", low=0.0, high=1.5,
        structures=("calcifications",),
    )  # fmt: skip
    calcification_from_nipple_mm: float = quantity(
        35.0, "how far the cluster lies towards the chest wall", unit="mm", low=5.0, high=110.0,
        structures=("calcifications",),
    )  # fmt: skip
    calcification_up_mm: float = quantity(
        -20.0, "how far above the nipple it lies in the image", unit="mm", low=-70.0, high=70.0,
        structures=("calcifications",),
    )  # fmt: skip
    exposure: float = quantity(1.0, "gain of the detector's signal", low=0.6, high=1.4, structures=("breast", "nipple"))
    blur_mm: float = quantity(0.4, "standard deviation of the point spread", unit="mm", low=0.0, high=3.0)
    noise: float = quantity(
        0.012, "standard deviation of the noise in the breast, full scale being 1", low=0.0, high=0.2
    )
    scanner: str = quantity("alpha", "scanner, with its own response", kind="categorical", choices=SCANNERS)
    view_marker: int = quantity(
        1, "burnt-in laterality and view, 1 present", low=0, high=1, structures=("view_marker",), kind="binary"
    )
    skin_marker: int = quantity(
        0, "lead beads on the skin, 1 present", low=0, high=1, structures=("skin_marker",), kind="binary"
    )
    site_tag: int = quantity(
        0, "burnt-in letters of a clinic, 1 present", low=0, high=1, structures=("site_tag",), kind="binary"
    )
    position_mm: float = quantity(0.0, "how far down the breast lies in the image", unit="mm", low=-15.0, high=15.0)

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def mass_area_mm2(self) -> float:
        """Area of the mass without its spicules."""
        return float(np.pi * self.mass_diameter_mm**2 / 4)

    @property
    def calcification_area_mm2(self) -> float:
        """Area of all calcifications."""
        return float(self.calcification_count * np.pi * self.calcification_size_mm**2 / 4)

    @property
    def category(self) -> int:
        """Assessment 1–5 by a known rule, after BI-RADS.

        ======== ================= ====================================================================
        category name              rule
        ======== ================= ====================================================================
        1        negative          no mass, no calcification
        2        benign            calcifications only: fewer than 5, or coarse (mean size from 1.2 mm)
        3        probably benign   a mass with spiculation below 0.25, or calcifications spread over more than 20 mm
        4        suspicious        5 or more fine calcifications within 20 mm, or a mass with spiculation from 0.25
        5        highly suggestive a mass from 10 mm with spiculation from 0.55, or a spiculated mass with such a cluster
        ======== ================= ====================================================================
        """
        mass, calcified = self.mass_diameter_mm > 0, self.calcification_count > 0
        fine = self.calcification_count >= CLUSTER_FROM and self.calcification_size_mm < COARSE_FROM_MM
        cluster = fine and self.calcification_extent_mm <= CLUSTER_WITHIN_MM
        spiculated = mass and self.mass_spiculation >= SPICULATED_FROM
        stellate = mass and self.mass_spiculation >= STELLATE_FROM and self.mass_diameter_mm >= LARGE_FROM_MM
        if stellate or (spiculated and cluster):
            return 5
        if spiculated or cluster:
            return 4
        if mass or fine:
            return 3
        return 2 if calcified else 1

    @property
    def suspicious(self) -> bool:
        """Whether a biopsy is advised: category 4 or 5."""
        return self.category >= 4
