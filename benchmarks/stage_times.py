"""Times the stages of a pipeline run: runs a DVC command and times its `Running stage` lines.

python benchmarks/stage_times.py dvc repro
python benchmarks/stage_times.py --json times.json dvc exp run -S bench.name=smoke
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

STAGE = re.compile(r"(Running stage|Stage) '(?P<name>[^']+)'")


def clocked(lines: Iterable[str]) -> dict[str, float]:
    """Seconds from each stage's line to the next; what DVC does around a stage counts for the stage before."""
    seconds: dict[str, float] = {}
    current, since = "dvc start", time.perf_counter()
    for line in lines:
        print(line, end="", file=sys.stderr)
        found = STAGE.match(line)
        if found:
            now = time.perf_counter()
            seconds[current] = seconds.get(current, 0.0) + now - since
            current, since = found["name"], now
    seconds[current] = seconds.get(current, 0.0) + time.perf_counter() - since
    return seconds


def grouped(seconds: dict[str, float]) -> dict[str, float]:
    """Stages of one kind (quantize@a, quantize@b) added up."""
    sums: dict[str, float] = {}
    for name, value in seconds.items():
        kind = name.split("@")[0]
        sums[kind] = sums.get(kind, 0.0) + value
    return sums


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the seconds of every stage here")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    process = subprocess.Popen(arguments.command, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout
    seconds = clocked(process.stdout)
    for kind, value in grouped(seconds).items():
        print(f"{kind:18} {value:7.1f} s")
    print(f"{'total':18} {sum(seconds.values()):7.1f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps({name: round(value, 2) for name, value in seconds.items()}, indent=1) + "\n")
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
