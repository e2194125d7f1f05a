"""The command line as one tree of parsers. A mistake is one line that names it, what is allowed and where to read on."""

import argparse
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from edgewise.config.settings import nearest
from edgewise.errors import UserError

SHELLS = ("bash", "zsh", "fish")  # that shtab completes in
Run = Callable[[argparse.Namespace], int | None]
PATHS = ("file", "folder", "data", "output")  # arguments that a shell completes with the names of files
USAGE = "edgewise COMMAND ..."
CODES = """0 done; 1 a result file is missing or damaged; 2 a mistake in a setting, a file
or the command; 3 the machine, the network or a missing package"""


class Parser(argparse.ArgumentParser):
    """Raises UserError instead of printing the usage and leaving the process. Options are not abbreviated."""

    def __init__(self, **settings: Any):
        self.names: list[str] = []
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **settings, "add_help": False})
        self.add_argument("-h", "--help", action="help", help="show this text")

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        self.names += [name for name in names if name.startswith("--") and settings.get("help") != argparse.SUPPRESS]
        return super().add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}; see `{self.prog} --help`")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        given, unknown = self.parse_known_intermixed_args(arguments)
        for argument in unknown:
            if argument.startswith("-"):
                raise UserError(f"{self.prog}: unknown option {argument!r}; {nearest(argument.partition('=')[0], self.names)}")
            self.error(f"{argument!r} is one argument too many")
        return given


@dataclass(frozen=True)
class Command:
    """run: its docstring is the text of --help below the options. options: adds them to a parser. codes: the exit codes, in words."""

    summary: str
    run: Run
    options: Callable[[Parser], object] = lambda _: None
    codes: str = CODES

    def help_texts(self) -> dict[str, str]:
        """What argparse shows before and after the options."""
        text = inspect.getdoc(self.run) or ""
        return {"description": f"{self.summary[:1].upper()}{self.summary[1:]}.", "epilog": f"{text}\n\nexit codes: {self.codes}"}


@dataclass(frozen=True)
class Tree:
    """The parser of `edgewise`, and that of each command, by name."""

    root: Parser
    commands: Mapping[str, Parser]


def build_tree(commands: Mapping[str, Command], text: str = "") -> Tree:
    """text: what `edgewise --help` shows below its commands."""
    root = Parser(prog="edgewise", usage=USAGE, epilog=text)
    root.add_argument("-V", "--version", action="store_true", help="show the version")
    group = root.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    return Tree(root, {name: add_command(group, name, command) for name, command in commands.items()})


def add_command(group: Any, name: str, command: Command) -> Parser:
    parser: Parser = group.add_parser(name, help=command.summary, prog=f"edgewise {name}", **command.help_texts())
    command.options(parser)
    return parser


def format_commands(commands: Mapping[str, Command]) -> str:
    """A line for each: its name and what it does."""
    width = max(map(len, commands))
    return "\n".join(f"  {name:{width}}  {command.summary}" for name, command in commands.items())


def make_script(tree: Tree, shell: str) -> str:
    """The script with which a shell, one of SHELLS, completes commands and options."""
    import shtab

    for parser in tree.commands.values():
        for action in parser._actions:
            if action.dest in PATHS:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(tree.root, shell)
