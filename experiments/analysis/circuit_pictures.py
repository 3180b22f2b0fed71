"""Where each node of a circuit is most active: the images as the model sees them, and the place in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from experiments.analysis.thumbnails import shrunk
from experiments.dashboard.circuit_page import NodePicture
from mechinterp.picture_figures import picture_url

if TYPE_CHECKING:
    from circuits import Circuit
    from circuits.nodes import NodeSet
    from mechinterp.models.vision_model import InputContract
    from mechinterp.sites import Site


def circuit_pictures(
    circuit: Circuit, names: Sequence[str] | None = None, *, most: int = 3
) -> dict[str, list[NodePicture]]:
    """Return, for every node that is active anywhere, the images in which it is most active.

    Parameters
    ----------
    circuit
        It brings the images that it was found on, as the model's input.
    names
        What each image is called; numbered by default.
    most
        Images of a node.

    Returns
    -------
    dict
        Id of a node → pictures, the most active first. The place is the token with the largest value: a ViT's patch, a map's
        cell (drawn as the part of the input that lies nearest to it); none for a prefix token.

    """
    from circuits.circuit import place_id

    wiring, x = circuit.wiring, circuit.batch.x
    wanted: dict[str, list[int]] = {}
    for site, node in circuit.nodes:
        wanted.setdefault(site, []).append(node)
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {site: [] for site in wanted}
    for start in range(0, len(x), circuit.batch_size):
        state = wiring.state(x[start : start + circuit.batch_size])
        for site, nodes in wanted.items():
            parts[site].append(_strongest(wiring.layer(site), state.acts[site], nodes))
    drawn = InputPictures(x, wiring.model.contract, names)
    found: dict[str, list[NodePicture]] = {}
    for site, nodes in wanted.items():
        values, tokens = (torch.cat([p[k] for p in parts[site]]).cpu().numpy() for k in (0, 1))
        for column, node in enumerate(nodes):
            pictures = drawn.strongest(wiring.model.site(site), values[:, column], tokens[:, column], most)
            if pictures:
                found[place_id((site, node))] = pictures
    return found


class InputPictures:
    """Inputs of a model as pictures, each made once.

    Parameters
    ----------
    x
        The inputs.
    contract
        What the model wants to be fed: its normalisation is undone.
    names
        What each image is called; numbered by default.

    """

    def __init__(
        self,
        x: Float[Tensor, "image channel height width"],
        contract: InputContract,
        names: Sequence[str] | None = None,
    ) -> None:
        self.x, self.contract = x, contract
        self.names = names or [f"image {i + 1} of those it was found on" for i in range(len(x))]
        self._made: dict[int, str] = {}

    def strongest(
        self, site: Site, values: Float[np.ndarray, " image"], tokens: Int[np.ndarray, " image"], most: int = 3
    ) -> list[NodePicture]:
        """Return the images with the largest values, each with the place of its token; none where no value is above 0.

        Parameters
        ----------
        site
            Whose tokens they are.
        values, tokens
            Largest value in each image, and at which token.
        most
            How many.

        """
        order = [int(i) for i in np.argsort(-values, kind="stable")[:most] if values[i] > 0]
        return [
            NodePicture(
                self._picture(i), f"{self.names[i]}, value {values[i]:.3g}", _box(site, int(tokens[i]), self.contract)
            )
            for i in order
        ]

    def _picture(self, image: int) -> str:
        if image not in self._made:
            self._made[image] = _input_picture(self.x[image], self.contract)
        return self._made[image]


def _strongest(layer: NodeSet, acts: Tensor, nodes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return each node's largest value in every image, and its token."""
    with torch.no_grad():
        parts = layer.split(acts)
        members = layer.members or None
        columns = []
        for node in nodes:
            if node >= layer.n_features and parts.error is not None:
                columns.append(parts.error.norm(dim=2))
            elif members is None:
                columns.append(parts.codes[..., node])
            else:
                own = parts.codes[..., list(members[node])]
                # of several values together only the size says how active they are
                columns.append(own[..., 0] if own.shape[2] == 1 else own.norm(dim=2))
        value, token = torch.stack(columns, dim=2).max(1)
    return value, token


def _input_picture(x: Float[Tensor, "channel height width"], contract: InputContract) -> str:
    """Return an input as a picture: its normalisation undone, as large as a thumbnail is at most."""
    pixels = x.detach().cpu().double()
    if pixels.dim() == 4:
        pixels = pixels[:, pixels.shape[1] // 2]
    mean, std = (torch.tensor(v, dtype=torch.float64).reshape(-1, 1, 1) for v in (contract.mean, contract.std))
    low, high = contract.value_range
    values = ((pixels * std + mean - low) / (high - low)).clamp(0, 1).permute(1, 2, 0).numpy()
    return picture_url(shrunk(values if values.shape[2] == 3 else values[..., :1]), (0.0, 1.0))


def _box(site: Site, token: int, contract: InputContract) -> tuple[float, float, float, float] | None:
    """Return a token's tile in the input, as shares of its sides."""
    grid = site.grid
    if grid is None or grid.depth is not None or grid.cells == 1 or token < site.prefix_tokens:
        return None
    top, left, bottom, right = grid.tiles()[token - site.prefix_tokens]
    shares = np.clip(
        [top / contract.height, left / contract.width, bottom / contract.height, right / contract.width], 0, 1
    )
    first, second, third, fourth = (float(v) for v in shares)
    return first, second, third, fourth
