"""How a circuit is found: settings, checked once; the command line takes its flags from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, cast

from mechinterp.errors import ConfigError

if TYPE_CHECKING:
    from circuits.edges import Method
    from circuits.frozen import Frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class FindConfig:
    """How a circuit is found."""

    method: Annotated[
        Literal["exact", "attribution", "integrated", "eap-ig"],
        "how edges are scored; eap-ig is another name of integrated",
    ] = "integrated"
    discovery: Annotated[
        Literal["threshold", "top-n", "acdc"], "which edges are kept: above the threshold, the n largest, or by ACDC"
    ] = "threshold"
    threshold: Annotated[float, "least effect of an edge, as a share of the whole change of the metric"] = 0.01
    top: Annotated[int, "how many edges are kept by top-n"] = 50
    max_nodes: Annotated[int, "nodes of a site between which edges are looked for: those with the largest effect"] = 64
    freeze: Annotated[tuple[str, ...], "what is held while an edge is measured: attention, norm, gates"] = ()
    steps: Annotated[int, "points on the way between the two runs, for integrated"] = 8
    batch: Annotated[int, "images at once"] = 32
    rows: Annotated[int, "images times interventions run at once: bounds the memory"] = 512
    boot: Annotated[int, "resamples of the patients, for intervals"] = 500
    seed: Annotated[int, "of draws and intervals"] = 0

    def __post_init__(self) -> None:
        for name in ("top", "max_nodes", "steps", "batch", "rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"threshold is {self.threshold:g}: it is a share, at least 0 and below 1")
        if self.method not in {"exact", "attribution", "integrated", "eap-ig"}:
            raise ConfigError(f"method is '{self.method}': it must be exact, attribution, integrated or eap-ig")
        if self.discovery not in {"threshold", "top-n", "acdc"}:
            raise ConfigError(f"discovery is '{self.discovery}': it must be threshold, top-n or acdc")
        unknown = set(self.freeze) - {"attention", "norm", "gates"}
        if unknown:
            raise ConfigError(f"freeze names '{sorted(unknown)[0]}': attention, norm and gates can be held")

    @property
    def how(self) -> Method:
        """The method as edges call it."""
        return "integrated" if self.method == "eap-ig" else self.method

    @property
    def frozen(self) -> frozenset[Frozen]:
        """What is held."""
        return frozenset(cast("tuple[Frozen, ...]", self.freeze))  # __post_init__ has looked
