"""``python -m benchmarks NAME [--quick] [--json]``; ``--all`` runs every one."""

from __future__ import annotations

import argparse
import importlib
import json
import sys

NAMES = ("capture", "capture-memory", "store", "sae-training", "sae-seeds", "sae-memory", "attribute-matrix", "effects")


def main() -> None:
    """Run the benchmarks that were named and print their ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[*NAMES, []], help="which; all with --all")
    parser.add_argument("--all", action="store_true", help="every benchmark")
    parser.add_argument("--quick", action="store_true", help="small sizes, a few seconds each")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args()
    chosen = NAMES if given.all else tuple(given.name)
    if not chosen:
        parser.error(f"name a benchmark ({', '.join(NAMES)}) or give --all")
    results = {}
    for name in chosen:
        print(f"benchmark {name} …", file=sys.stderr)
        results[name] = importlib.import_module(f"benchmarks.{name.replace('-', '_')}").measure(given.quick)
    if given.json:
        print(json.dumps(results, sort_keys=True))
        return
    for name, result in results.items():
        print(name)
        for key, ratio in result["ratios"].items():
            print(f"  {key:45s} {ratio:8.3f}")


if __name__ == "__main__":
    main()
