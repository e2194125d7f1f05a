"""The command line of one command. A mistake is one line that names it, what is allowed and where to read on."""

import argparse
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from edgewise.config.settings import nearest
from edgewise.errors import UserError

Run = Callable[[argparse.Namespace], int | None]


class Parser(argparse.ArgumentParser):
    """Raises UserError instead of printing the usage and leaving the process. Options are not abbreviated."""

    def __init__(self, name: str, summary: str, text: str):
        super().__init__(
            prog=f"edgewise {name}",
            description=summary,
            epilog=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.names: list[str] = []
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
    """run: its docstring is the text of --help below the options. options: adds them to a parser."""

    summary: str
    run: Run
    options: Callable[[Parser], object] = lambda _: None

    def call(self, name: str, arguments: Sequence[str]) -> int | None:
        parser = Parser(name, self.summary, inspect.getdoc(self.run) or "")
        self.options(parser)
        return self.run(parser.parse(arguments))
