"""edgewise COMMAND ...: what a user types beside `dvc repro`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from edgewise.cli.commands import COMMANDS
from edgewise.cli.parsing import USAGE, Tree, build_tree, format_commands
from edgewise.config.settings import nearest
from edgewise.errors import UserError, run_main

RUN = "DVC runs the pipeline of a project: `dvc repro`, or `dvc exp run -S KEY=VALUE`"
TEXT = f"""Edge variants of trained models: made, proved, judged and measured.

{RUN};
there is no `edgewise run`. Beside it there are

{{commands}}

  edgewise COMMAND --help      what it reads and writes, its options, examples
  edgewise --version

exit codes: 0 done; 1 a check failed, or an unexpected error; 2 a mistake in a setting,
a file or a command; 3 the machine, the network or a missing package"""


def main() -> None:
    run_main(lambda: dispatch(sys.argv[1:]))


def tree() -> Tree:
    """The parsers of all commands, from which the shells complete too."""
    return build_tree(COMMANDS, TEXT.format(commands=format_commands(COMMANDS)))


def dispatch(arguments: Sequence[str]) -> int | None:
    name = arguments[0] if arguments else "--help"
    parsers = tree()
    if name in ("-h", "--help"):
        print(f"usage: {USAGE}\n\n{parsers.root.epilog}")
        return 0
    if name in ("-V", "--version"):
        from importlib import metadata

        print(f"edgewise {metadata.version('edgewise')}")
        return 0
    if name == "run":
        raise UserError(f"unknown command 'run'. {RUN}")
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}; {nearest(name, COMMANDS)}; see `edgewise --help`")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # as for `python -m`: the project's own modules, which settings may name
    return COMMANDS[name].run(parsers.commands[name].parse(arguments[1:]))


if __name__ == "__main__":
    main()
