"""Build a library's model with the options of a spec, and with random weights or those of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from mechinterp.models.fitting import Remedy, classes_in, load_into
from mechinterp.models.options import Option
from mechinterp.models.source import Request
from mechinterp.models.weights import StateDict, read_state_dict

Build = Callable[[dict[str, Option]], nn.Module]
Read = Callable[[Path], StateDict]


def build_and_fill(
    request: Request, build: Build, classes: str, *, read: Read = read_state_dict, remedy: Remedy | None = None
) -> tuple[nn.Module, str, tuple[str, ...]]:
    """Build a model, seeded, and fill it from the weights file if one was named.

    Parameters
    ----------
    request
        What the user asked for.
    build
        From keyword arguments to a module.
    classes
        The keyword argument that is the number of classes. Where the spec leaves it out, it follows the weights file, as a
        fine-tuned model's differs from its architecture's default, or else the class names the user gave.
    read
        Reads the weights file.
    remedy
        What to say about a file that does not fit.

    Returns
    -------
    module, weights, notes
        The module, where its weights came from, and what was done to their names.

    Raises
    ------
    ModelError
        If the model cannot be built with these options.
    WeightsError
        If the file cannot be read, or does not fit.

    """
    options = dict(request.options)
    free = classes not in options
    if free and request.random and request.classes is not None:
        options[classes] = request.classes
    with request.building():
        module = build(options)
    if request.weights_file is None:
        return module, "random", ()
    origin, state = str(request.weights_file), read(request.weights_file)
    n = classes_in(state, module.state_dict(), origin) if free else None
    if n is not None:
        with request.building():
            module = build(options | {classes: n})
    return module, origin, load_into(module, state, origin, remedy)
