"""Measure some tables, or all of them, and put them into benchmarks/RESULTS.md.

python -m benchmarks                  all
python -m benchmarks steady memory    these two; the others stay as they are
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

COMMANDS = {"rules": ["rules", "--threads", "1"], "rules_two_threads": ["rules", "--threads", "2"]}  # others are modules
RESULTS = Path(__file__).with_name("RESULTS.md")
TABLES = {
    "steady": "Rounds in steady state",
    "whole": "Whole runs",
    "population": "A million clients",
    "batched": "Many clients at once",
    "rules": "Rules",
    "rules_two_threads": "Rules, two threads",
    "rules_memory": "Memory of rules at the size of a ResNet-18",
    "fedau": "FedAU's counters",
    "fedlaw": "FedLAW's server",
    "votes": "Elections",
    "memory": "Peak memory",
    "leak": "Memory over 200 rounds",
    "sweep": "A sweep of 60 runs",
}


def main(names: list[str]) -> None:
    """Measure the tables of these names, one after another."""
    unknown = sorted(set(names) - set(TABLES))
    if unknown:
        sys.exit(f"no table {', '.join(unknown)}; there are {', '.join(TABLES)}")
    for name in names or TABLES:
        module, *arguments = COMMANDS.get(name, [name])
        command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        parts = {**_parts(), name: done.stdout.strip()}
        text = "".join(f"\n## {title}\n\n{parts[key]}\n" for key, title in TABLES.items() if key in parts)
        RESULTS.write_text(f"# Results\n{text}")
        print(done.stdout, flush=True)


def _parts() -> dict[str, str]:
    """Return what the file holds already, by table."""
    names = {title: name for name, title in TABLES.items()}
    found = re.findall(r"^## (.+?)\n\n(.*?)\n(?=\n## |\Z)", RESULTS.read_text() if RESULTS.exists() else "", re.M | re.S)
    return {names[title]: body for title, body in found if title in names}


if __name__ == "__main__":
    main(sys.argv[1:])
