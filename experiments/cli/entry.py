"""Console script ``mechinterp``: finds the command, runs it, turns errors into one line and an exit code.

Exit codes: 0 done, 1 ``verify`` found damage (or ``--strict`` was not met), 2 the input was wrong, 3 disk or data damage,
70 a bug of ours.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from mechinterp._version import __version__
from mechinterp.errors import ConfigError, MechinterpError, nearest

COMMANDS = {
    "init": "Write a commented config file for your own model and images.",
    "run": "Run the commands of a config file, one after another.",
    "study": "Run a whole case study and write its pages; `study brain-mri` is the demo.",
    "capture": "Run a model over images and store the activations of some sites.",
    "verify": "Check every file of an activation store against its checksum.",
    "train-sae": "Train sparse autoencoders on a store.",
    "evaluate-sae": "Measure a sparse autoencoder on held-out images, beside its baselines.",
    "compare-saes": "Compare sparse autoencoders: sparsity against explained variance, and what recurs over seeds.",
    "import-sae": "Take over a sparse autoencoder of SAELens, dictionary_learning or overcomplete.",
    "export-sae": "Write a sparse autoencoder so that another library reads it.",
    "probe": "Read a physical attribute off a site with a linear probe and its controls.",
    "heads": "Fit classifiers of a site's features whose every answer is a sum of terms to look at.",
    "attributes": "Say which physical attribute each feature follows, in units.",
    "circuit": "Find which nodes and edges drive an answer, and test how faithful they are.",
    "transcoder-graph": "Trace an answer of a ViT back through transcoder features.",
    "localize": "Say where in the image an answer comes from, and whether such maps can be believed.",
    "shortcuts": "Find features whose use differs between two environments.",
    "edit": "Remove a shortcut, and say what that wins and costs.",
    "steer": "Add more and more of a feature, and say what that does to the decision.",
    "counterfactuals": "Find the fewest features whose change turns a decision.",
    "subgroups": "Measure what the strongest nodes do in every subgroup of patients.",
    "defer": "Say whether a score knows when not to trust the model.",
    "diff-models": "Say which features a later checkpoint gained, lost or turned.",
    "diff-circuits": "Say which edges two circuits share, and which only one has.",
    "dashboard": "Show a run in the browser, or export pages that open from disk.",
    "rate": "Make a page on which people say, blindly, what features' images have in common.",
    "ratings": "Say whether people recognise the features they rated, and whether they agree.",
    "report": "Say, element by element, whether a run makes its model interpretable; page, JSON and PDF.",
    "compare": "Show the reports of several runs side by side: studies, models, conditions.",
    "phantoms": "Render images with known truth, from physical parameters.",
    "train-reference": "Train a small reference model on phantoms.",
    "sites": "List the places of a model that can be captured.",
    "models": "List the sources of models and how to name one.",
    "doctor": "Say what is installed, what is missing, and how to get it.",
}

BUG = 70
INTERRUPTED = 130
_INTERRUPTED = "interrupted: what was written is whole; the same command goes on from there"


class LazyGroup(TyperGroup):
    """A group that knows its commands' names and one-line helps, and imports a command only to run it."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands in the order they are told in."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """Return a light stand-in, enough for the list of commands."""
        if cmd_name not in COMMANDS:
            return None
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name], rich_help_panel="Commands")

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, TyperCommand | None, list[str]]:
        """Import the command that was called; an unknown one is refused with the nearest names."""
        name = args[0]
        if name not in COMMANDS:
            raise ConfigError(f"no command '{name}': {nearest(name, COMMANDS)} (mechinterp --help)")
        return name, load_command(name), args[1:]


def load_command(name: str) -> TyperCommand:
    """Import one command and return it ready to be called."""
    module = importlib.import_module(f"experiments.cli.commands.{name.replace('-', '_')}")
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command(name=name, help=module.run.__doc__, context_settings={"help_option_names": ["-h", "--help"]})(
        module.run
    )
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand)
    return command


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Research use only. Every command takes --help; examples stand there.",
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"mechinterp {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    """Mechanistic interpretability for medical vision models."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Run the command line and return the exit code."""
    try:
        result: Any = typer.main.get_command(app).main(args=argv, prog_name="mechinterp", standalone_mode=False)
        if result == INTERRUPTED:
            _say(_INTERRUPTED)
        return result if isinstance(result, int) else 0
    except MechinterpError as error:
        _say(str(error))
        return error.exit_code
    except TyperException as error:
        context = getattr(error, "ctx", None)
        command = f" {context.info_name}" if context is not None and context.parent is not None else ""
        if error.format_message():  # without one, the help was printed instead
            _say(f"{error.format_message()} (mechinterp{command} --help)")
        return 2
    except Exception as error:  # noqa: BLE001  the one place where a bug of ours becomes a line and an exit code
        if os.environ.get("MECHINTERP_TRACEBACK"):
            traceback.print_exc()
        _say(
            f"this is a bug of mechinterp {__version__}, not of your input: {type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''} (MECHINTERP_TRACEBACK=1 shows where)"
        )
        return BUG


def _say(text: str) -> None:
    print(f"mechinterp: {' '.join(text.split())}", file=sys.stderr)
