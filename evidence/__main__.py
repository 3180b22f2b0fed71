"""``python -m evidence [NAME …] [--check]``: make the figures and the page, or say which are stale."""

from __future__ import annotations

import argparse
import sys

from evidence.record import PAGE, checks, make, page, stale
from experiments.cli.console import ConsoleProgress
from mechinterp.files import write_bytes


def main() -> int:
    """Run what was named; return the exit code."""
    found = checks()
    parser = argparse.ArgumentParser(prog="python -m evidence", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ({', '.join(found)}); all that are stale")
    parser.add_argument("--check", action="store_true", help="run nothing; fail when a figure or the page is stale")
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(found))
    if unknown:
        parser.error(f"no check is called {unknown[0]!r}: there are {', '.join(found)}")
    if given.check:
        lines = stale(found)
        if PAGE.read_text(encoding="utf-8") != page(found):
            lines.append("docs/evidence.md is not what the figures say: run `make evidence`")
        print("\n".join(lines) or f"{len(found)} checks, none stale")
        return int(bool(lines))
    outdated = {line.split("/")[2].split(".")[0] for line in stale(found)}
    for name in given.names or [name for name in found if name in outdated]:
        print(f"evidence {name} …", file=sys.stderr)
        make(name, found[name], ConsoleProgress())
    write_bytes(PAGE, page(found).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
