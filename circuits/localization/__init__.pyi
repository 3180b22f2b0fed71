from .config import (
    LocalizationConfig as LocalizationConfig,
    MapConfig as MapConfig,
)
from .estimates import Estimate as Estimate
from .feature_maps import (
    circuit_maps as circuit_maps,
    effect_maps as effect_maps,
    feature_maps as feature_maps,
)
from .lesions import (
    Lesions as Lesions,
    lesions_of as lesions_of,
)
from .localizing import localize as localize
from .lrp_rules import (
    LrpRules as LrpRules,
    RelevanceMode as RelevanceMode,
)
from .maps import RelevanceMaps as RelevanceMaps
from .node_relevance import node_relevance as node_relevance
from .randomisation import (
    Randomisation as Randomisation,
    randomise as randomise,
    with_random_layers as with_random_layers,
)
from .shown_images import (
    ShownImages as ShownImages,
    show_images as show_images,
)
from .table import (
    LocalizationTable as LocalizationTable,
    MethodRow as MethodRow,
)
from .tabulating import localization_table as localization_table
