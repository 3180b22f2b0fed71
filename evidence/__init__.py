"""Statistical checks that need hundreds of seeds, kept with what they found.

Each module here holds one check: ``SOURCES`` (the files whose code decides its figures, as paths or globs from the
root), ``TITLE``, ``run(small, progress)``, which returns figures that JSON can hold, and ``render(figures)``, which
returns Markdown. ``make evidence`` runs them at full size, writes ``evidence/figures/NAME.json`` with a hash of the
sources, and renders ``docs/evidence.md``. ``python -m evidence --check`` fails when a figure is older than its code:
comments and docstrings do not count.
"""
