"""The house rule on length: no file over 450 lines, no function over 50. Run by `make check` and by the test suite."""

import ast
import statistics
import sys
from pathlib import Path

FILE_LINES, FUNCTION_LINES = 450, 50


def functions(path: Path) -> list[tuple[str, int]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [(f"{path}:{n.lineno} {n.name}", (n.end_lineno or n.lineno) - n.lineno + 1) for n in ast.walk(tree) if isinstance(n, kinds)]


def faults(root: Path) -> tuple[list[str], str]:
    """What breaks the rule below `root`, and a line that sums up."""
    files = {
        p: len(p.read_text(encoding="utf-8").splitlines())
        for top in ("edgewise", "stages", "tests", "benchmarks")
        for p in sorted((root / top).rglob("*.py"))
    }
    found = [item for path in files for item in functions(path)]
    long = [f"{path} has {count} lines, at most {FILE_LINES}" for path, count in files.items() if count > FILE_LINES]
    long += [f"{name} has {count} lines, at most {FUNCTION_LINES}" for name, count in found if count > FUNCTION_LINES]
    lengths = [count for _, count in found] or [0]
    medians = f"median {statistics.median(files.values() or [0]):.0f} lines; functions: median {statistics.median(lengths):.0f} lines"
    return long, f"{len(files)} files, {medians}"


if __name__ == "__main__":
    broken, summary = faults(Path.cwd())
    print(*broken, summary, sep="\n")
    sys.exit(bool(broken))
