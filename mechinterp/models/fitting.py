"""Put a state dict into a module: under the module's names, whatever training put in front of them, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from mechinterp.errors import WeightsError
from mechinterp.models.weights import StateDict, some

# Parts a network has only while it is trained: they change nothing of what it computes afterwards. Anything else that the
# model does not have is refused, since it may be a part that was computed with (layer scale, registers).
TRAINING_ONLY = ("decoder", "mask_token", "criterion", "loss", "proj_head", "projection_head", "projector", "predictor")
_PROBES = 24  # names looked up to find the prefixes; one would do, unless the file lacks it


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file fit a module.

    Parameters
    ----------
    state
        The tensors under the module's names, as far as it has them.
    missing
        Names that the module has and the file lacks.
    unexpected
        Names that the file has and the module lacks.
    reshaped
        Names of which the two have another shape.
    matched
        How many names both have.
    notes
        What was done to the names.

    """

    state: Mapping[str, Tensor]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    matched: int
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every tensor has its place."""
        return not (self.missing or self.unexpected or self.reshaped)


Remedy = Callable[[Fit], "str | None"]


def fit(state: Mapping[str, Tensor], own: Mapping[str, Tensor], origin: str) -> Fit:
    """Bring a file's tensors under a module's names.

    Wrappers put their name in front of all names (``module.``, ``model.``, ``backbone.``, ``_orig_mod.``, several of them), and a
    checkpoint of a training run holds other things beside the network. The prefix under which most names fit is found
    from the names themselves; so is one that the module has and the file lacks.

    Parameters
    ----------
    state
        The file's tensors.
    own
        The module's state dict.
    origin
        The file's name, for messages.

    Raises
    ------
    WeightsError
        If the file holds the whole module more than once, as a student and its teacher.

    """
    file = Path(origin).name
    stripped, n_stripped = _best_prefix(state, own, origin)
    added, n_added = _best_prefix(own, state, origin)
    notes: list[str] = []
    if n_added > n_stripped:
        renamed = {added + name: tensor for name, tensor in state.items()}
        notes.append(f"names in {file} put under '{added}'")
    else:
        renamed = {name.removeprefix(stripped): t for name, t in state.items() if name.startswith(stripped)}
        # a head that stands beside the prefixed backbone is one of the module's own too
        renamed |= {name: state[name] for name in own.keys() - renamed.keys() if name in state}
        if stripped:
            notes.append(f"prefix '{stripped}' stripped from the names in {file}")
            kept = {stripped + name for name in renamed} | renamed.keys()
            notes += _left_out([name for name in state if name not in kept], file)
    leftovers = [n for n in renamed if n not in own and n.startswith(TRAINING_ONLY)]
    notes += _left_out(leftovers, file)
    renamed = {name: tensor for name, tensor in renamed.items() if name not in leftovers}
    common = own.keys() & renamed.keys()
    return Fit(
        state=renamed,
        # counters of batch norms are absent from many checkpoints and change nothing in evaluation
        missing=tuple(n for n in own if n not in renamed and not n.endswith("num_batches_tracked")),
        unexpected=tuple(n for n in renamed if n not in own),
        reshaped=tuple(n for n in own if n in common and own[n].shape != renamed[n].shape),
        matched=len(common),
        notes=tuple(notes),
    )


def load_into(
    module: nn.Module, state: Mapping[str, Tensor], origin: str, remedy: Remedy | None = None
) -> tuple[str, ...]:
    """Put a state dict into a module, all of it or nothing.

    Parameters
    ----------
    module
        The module.
    state
        Names and tensors.
    origin
        Where they came from, for messages.
    remedy
        What a source knows to say about a mismatch.

    Returns
    -------
    tuple of str
        Notes: what was done to the names, and what was left out.

    Raises
    ------
    WeightsError
        If names or shapes differ: the first few of each are listed, with what can be done.

    """
    own = module.state_dict()
    found = fit(state, own, origin)
    if not found.complete:
        raise WeightsError(
            f"'{origin}' does not fit the model: {_differences(found, own)}; of {len(own)} tensors in the model, "
            f"{found.matched} have a match by name: {(remedy and remedy(found)) or _usual_remedy(found, state)}"
        )
    module.load_state_dict(dict(found.state), strict=False)
    return found.notes


def classes_in(state: Mapping[str, Tensor], own: Mapping[str, Tensor], origin: str) -> int | None:
    """Return the number of classes of a file whose head has another number of them; ``None`` if that is not all that differs."""
    found = fit(state, own, origin)
    shapes = [(own[name].shape, found.state[name].shape) for name in found.reshaped]
    rows = {(mine[0], theirs[0]) for mine, theirs in shapes if mine and theirs and mine[1:] == theirs[1:]}
    whole = len(rows) == 1 and all(mine[1:] == theirs[1:] for mine, theirs in shapes)
    return rows.pop()[1] if whole else None


def _best_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor], origin: str) -> tuple[str, int]:
    """Return the prefix of `state` under which most names of `own` stand, and how many."""
    names = list(own)
    probes = names[:: max(1, len(names) // _PROBES)]
    candidates = {name.removesuffix(probe) for probe in probes for name in state if name.endswith(f".{probe}")}
    fitting = {p: sum(p + name in state for name in names) for p in {"", *candidates}}
    best = max(fitting.values())
    # the shortest: a name that needs none keeps its own
    first, *others = sorted((p for p, n in fitting.items() if n == best), key=lambda p: (len(p), p))
    if first and others and best == len(names):
        raise WeightsError(
            f"'{origin}' holds the model more than once ({some([first, *others])}): save the one that is meant to a "
            "file of its own"
        )
    return first, best


def _left_out(names: Iterable[str], file: str) -> list[str]:
    left = list(names)
    return [f"{len(left)} tensors in {file} are no part of the model and were left out ({some(left)})"] if left else []


def _differences(found: Fit, own: StateDict) -> str:
    shapes = [f"{n} {tuple(found.state[n].shape)} for {tuple(own[n].shape)}" for n in found.reshaped]
    lists = (("missing", found.missing), ("unexpected", found.unexpected), ("of another shape", shapes))
    return ", ".join(f"{len(names)} {what} ({some(names)})" for what, names in lists if names)


def _usual_remedy(found: Fit, state: Mapping[str, Tensor]) -> str:
    if not found.matched:
        return f"it holds another kind of model (its first name is {next(iter(state))}), name the one it was trained as"
    # a head is what people change: all else fits, and what does not lies together
    places = {name.partition(".")[0] for name in (*found.missing, *found.unexpected)}
    if len(places) == 1 and found.missing and found.unexpected and not found.reshaped:
        return f"all but '{places.pop()}' fits: build the network with your own in its place by py:FILE.py:FUNCTION"
    return "name the model, and its options behind a ?, as it was trained"
