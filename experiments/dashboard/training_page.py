"""What a training looks like while it runs: ``training.html`` beside the autoencoders, anew at every checkpoint."""

from __future__ import annotations

from pathlib import Path

from experiments.dashboard.single_page import Shown, write_single_page
from sparse_autoencoders.figures import curves_figure, density_figure, silence_figure
from sparse_autoencoders.training import TrainingStatus

REFRESH_SECONDS = 60


class TrainingPage:
    """Writes the page; its :meth:`write` is handed to the training as what watches it."""

    def __init__(self, out: Path) -> None:
        self.path = Path(out) / "training.html"

    def write(self, status: TrainingStatus) -> None:
        """Write the page anew."""
        done = status.finished or status.step >= status.steps
        early = done and status.step < status.steps
        lines = [
            f"{'Stopped early at' if early else 'Finished' if done else 'At'} step {status.step:,} of {status.steps:,}"
            f"{', since held-out tokens gained no more' if early else ''}; "
            f"{status.rows_per_second:,.0f} tokens a second, all autoencoders together."
        ]
        lines += [
            f"{name}: explained variance {curve['explained_variance'][-1]:.3f} of the last batch noted, "
            f"{curve['l0'][-1]:.1f} active features a token, {curve['dead'][-1]:.1%} dead."
            for name, curve in status.curves.items()
            if curve["step"]
        ]
        if not done:
            lines.append(f"This page reads itself anew every {REFRESH_SECONDS} s; it is written at every checkpoint.")
        figures = [
            Shown(
                "Training curves",
                curves_figure(status.curves),
                "Loss and explained variance are of training batches: what counts is measured on held-out images "
                "afterwards.",
            ),
            Shown(
                "How often features are active",
                density_figure(status.densities),
                "On 2,048 training tokens at most, by the weights as they are. A hump at the right says little of many tokens; features at the left "
                "are rare, and may be chance.",
            ),
            Shown(
                "Silent features",
                silence_figure(status.silent_epochs),
                "Features far to the right have not been active for whole epochs: they are dead, or wait for a rare token.",
            ),
        ]
        write_single_page(self.path, "Training", lines, figures, refresh_seconds=None if done else REFRESH_SECONDS)
