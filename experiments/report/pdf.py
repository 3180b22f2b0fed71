"""The page as a PDF that a person can file, by Chromium's own print."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from mechinterp.errors import ConfigError
from mechinterp.files import write_bytes

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 180


def find_chromium() -> str | None:
    """Return the path of an installed Chromium, or ``None``."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def print_pdf(page: Path, out: Path) -> Path:
    """Print a page from disk to a PDF and return its path.

    Parameters
    ----------
    page
        The HTML file. Nothing else is read, and no network is asked.
    out
        Where; an earlier file there is replaced once this one is whole.

    Raises
    ------
    ConfigError
        If no Chromium is installed, or it prints nothing.
    DiskError
        If the file cannot be written.

    """
    chromium = find_chromium()
    if chromium is None:
        raise ConfigError(
            "no Chromium is installed, which prints the PDF: `apt-get install chromium`, or print report.html from any browser"
        )
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "report.pdf"
        # inside a container Chromium's own sandbox refuses to run as root
        alone = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        command = [
            chromium, "--headless", *alone, "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-quic", f"--user-data-dir={folder}/profile",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000", "--no-pdf-header-footer",
            f"--print-to-pdf={made}", Path(page).resolve().as_uri(),
        ]  # fmt: skip
        try:
            subprocess.run(command, check=False, capture_output=True, timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ConfigError(f"{chromium} printed no PDF within {SECONDS} s: print {page} from a browser") from error
        if not made.exists():
            raise ConfigError(f"{chromium} printed no PDF: print {page} from a browser")
        write_bytes(Path(out), made.read_bytes())
    return Path(out)
