"""`edgewise report --check`: the options of the gates, and what runs them."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.cli.parsing import Parser
from edgewise.errors import UserError

if TYPE_CHECKING:
    from edgewise.artifacts.records import Summary

SUFFIXES = {"json": "json", "junit": "xml"}
BY_REVISION = ("no_slower_than_last", "no_worse_than_last")
NEED_CHECK: dict[str, Any] = {
    **{"faster_than": [], "equivalent": [], "rev": None, "json": None, "junit": None},
    **dict.fromkeys(BY_REVISION, False),
}


def add_options(parser: Parser) -> None:
    gate = {"action": "append", "default": [], "metavar": "VARIANT:NUMBER"}
    parser.add_argument("--check", action="store_true", help="gates instead of the table: variants, budget, and those that follow")
    parser.add_argument("--faster-than", help="it is more than so many times as fast as the reference: onnx-int8-static:1.5", **gate)
    parser.add_argument("--equivalent", help="its score differs from the reference's by less than so many points: onnx-fp16:0.5", **gate)
    parser.add_argument(
        "--no-slower-than-last",
        action="store_true",
        help="no variant is slower, against the reference, than in the committed metrics/summary.json",
    )
    parser.add_argument(
        "--no-worse-than-last", action="store_true", help="no variant, the reference included, has a worse score than committed there"
    )
    parser.add_argument("--rev", metavar="REV", help="the git revision to compare with instead of HEAD")
    parser.add_argument("--json", metavar="FILE", help="write the verdicts as JSON too")
    parser.add_argument("--junit", metavar="FILE", help="write the verdicts as JUnit XML too, which CI services show")


def refuse_without_check(given: Namespace) -> None:
    """UserError for an option of a gate without --check, which would be ignored."""
    if given.check:
        if given.rev is not None and not any(getattr(given, name) for name in BY_REVISION):
            raise UserError(f"edgewise report: --rev says what {' and '.join(map(flag, BY_REVISION))} compare with; give one of them too")
        return
    ignored = [name for name, default in NEED_CHECK.items() if getattr(given, name) != default]
    if ignored:
        raise UserError(f"edgewise report: {flag(ignored[0])} is an option of --check; give that too")


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def check(given: Namespace, summary: "Summary") -> int:
    """Print a line for each gate and write the files that were asked for. The exit code is that of gates.exit_code."""
    from edgewise.report import gates, last_run

    for option in ("json", "junit"):
        if (name := getattr(given, option)) is not None and (not name or Path(name).is_dir()):
            raise UserError(f"edgewise report: --{option} {name!r} must be the name of a file, for example gates.{SUFFIXES[option]}")

    asked = [name for name in BY_REVISION if getattr(given, name)]
    last = last_run.read_last(given.rev or "HEAD", flag(asked[0])) if asked else None
    found = gates.run_gates(
        summary,
        gates.Demands(
            faster=[gates.parse_demand("--faster-than", text, summary) for text in given.faster_than],
            equivalent=[gates.parse_demand("--equivalent", text, summary) for text in given.equivalent],
            no_slower=last if given.no_slower_than_last else None,
            no_worse=last if given.no_worse_than_last else None,
        ),
    )
    gates.print_gates(found)
    if given.json:
        gates.write_gates(found, summary, Path(given.json))
    if given.junit:
        gates.write_junit(found, Path(given.junit))
    return gates.exit_code(found)
