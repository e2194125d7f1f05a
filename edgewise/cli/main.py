"""edgewise COMMAND ...: what a user types beside `dvc repro`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from edgewise.cli.commands import COMMANDS
from edgewise.config.settings import nearest
from edgewise.errors import UserError, run_main

USAGE = """usage: edgewise COMMAND ...

Edge variants of trained models: made, proved, judged and measured. `dvc repro`
runs the pipeline of a project; beside it there are

{commands}

  edgewise COMMAND --help      what it reads and writes, its options, examples
  edgewise --version

exit codes: 0 done; 1 a check failed, or an unexpected error; 2 a mistake in a setting,
a file or a command; 3 the machine, the network or a missing package"""


def main() -> None:
    run_main(lambda: dispatch(sys.argv[1:]))


def dispatch(arguments: Sequence[str]) -> int | None:
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(USAGE.format(commands="\n".join(f"  {key:8} {command.summary}" for key, command in COMMANDS.items())))
        return 0
    if name in ("-V", "--version"):
        from importlib import metadata

        print(f"edgewise {metadata.version('edgewise')}")
        return 0
    if name not in COMMANDS:
        raise UserError(f"{name!r} is no command of edgewise; {nearest(name, COMMANDS)}; see `edgewise --help`")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # as for `python -m`: the project's own modules, which settings may name
    return COMMANDS[name].call(name, arguments[1:])


if __name__ == "__main__":
    main()
