"""The flags that mean the same in every command, and flags made from a stage's config dataclass."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from mechinterp.errors import ConfigError

ModelFlag = Annotated[
    str,
    typer.Option(
        "--model", help="SOURCE:NAME?OPTION=VALUE, as timm:resnet18 or py:FILE.py:FUNCTION; see `mechinterp models`"
    ),
]
WeightsFlag = Annotated[
    str | None, typer.Option("--weights", help="safetensors file or state dict; `random` asks for an untrained model")
]
DownloadFlag = Annotated[bool, typer.Option("--download", help="allow the network for missing weights")]
ImagesFlag = Annotated[
    Path,
    typer.Option(
        "--images",
        help="folder of pictures (with metadata.csv, or class sub-folders), of DICOM or of NIfTI; a .nii.gz, .dcm, .npy or "
        "MedMNIST .npz file; a saved Hugging Face data set; phantom; dicom:PATH, volumes:PATH … say which",
    ),
]
FitFlag = Annotated[
    Literal["pad", "stretch", "crop", "model"],
    typer.Option(
        "--fit",
        help="how images are brought to the model's input, as it was trained: pad keeps proportions, stretch gives them up, "
        "crop cuts, model does as the model's own processor",
    ),
]
WindowFlag = Annotated[
    str | None,
    typer.Option("--window", help="black and white of DICOM and NIfTI: brain, lung, bone, liver …, or CENTRE,WIDTH"),
]
MaxBadFlag = Annotated[
    str,
    typer.Option(
        "--max-bad", help="how many damaged images are set aside before it stops: a count as 3, or a share as 10%"
    ),
]
CheckFlag = Annotated[
    bool,
    typer.Option(
        "--check/--no-check",
        help="read every image once before, set damaged ones aside, look for burned-in text and faces",
    ),
]
KeyFlag = Annotated[
    str | None,
    typer.Option("--key", help="key file by which patients are named; `random` for one that is forgotten afterwards"),
]
SiteFlag = Annotated[str | None, typer.Option("--site", help="a place in the model, as `mechinterp sites` lists them")]
ActivationsFlag = Annotated[
    Path, typer.Option("--activations", help="an activation store, as `mechinterp capture` makes it")
]
SplitFlag = Annotated[str | None, typer.Option("--split", help="use the images of this split only")]
SaeFlag = Annotated[Path | None, typer.Option("--sae", help="an autoencoder's folder; by default the run's first")]
SeedFlag = Annotated[int, typer.Option("--seed", help="decides every random choice")]
DeviceFlag = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N")]
JsonFlag = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout; notes go to stderr")]


def with_config(config: type, *, leave_out: Sequence[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one flag per field of a config dataclass, and hand it the fields as the keyword ``settings``.

    Parameters
    ----------
    config
        A dataclass whose fields are ``Annotated[type, "help"]``.
    leave_out
        Fields that the command sets itself.

    """
    hints = get_type_hints(config, include_extras=True)
    flags: list[inspect.Parameter] = []
    lists: dict[str, type] = {}
    for field in dataclasses.fields(config):
        if field.name in leave_out:
            continue
        kind, text = (
            get_args(hints[field.name])[:2] if get_origin(hints[field.name]) is Annotated else (hints[field.name], "")
        )
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        if _is_list(kind):  # `--seeds 0,1,2`: one flag, as people write lists
            lists[field.name] = get_args(kind)[0]
            kind, default = str, ",".join(map(str, default)) if isinstance(default, tuple) else default
            text += "; separated by commas"
        flags.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[kind, typer.Option(f"--{field.name.replace('_', '-')}", help=text)],
            )
        )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(command, eval_str=True)

        @functools.wraps(command)
        def wrapper(**given: Any) -> Any:
            settings = {flag.name: given.pop(flag.name) for flag in flags}
            settings |= {name: parsed_list(name, settings[name], kind) for name, kind in lists.items()}
            return command(**given, settings=settings)

        kept = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY) if p.kind is p.POSITIONAL_OR_KEYWORD else p
            for p in own.parameters.values()
            if p.name != "settings"
        ]
        wrapper.__signature__ = own.replace(parameters=[*kept, *flags])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in [*kept, *flags]}
        return wrapper

    return decorate


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis


def parsed_list(name: str, text: str, kind: type) -> tuple[Any, ...]:
    """Return a flag's values, which people write with commas between them.

    Raises
    ------
    ConfigError
        If one is none of its kind.

    """
    try:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(
            f"--{name.replace('_', '-')} is '{text}': give {kind.__name__} values separated by commas"
        ) from None
