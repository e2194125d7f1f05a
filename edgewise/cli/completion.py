"""Shell completion of `edgewise`, made by shtab from the tree of parsers."""

from argparse import Action

from edgewise.cli.parsing import Tree

PATHS = ("file", "folder", "data", "output")  # arguments that a shell completes with the names of files


def make_script(tree: Tree, shell: str) -> str:
    """The script that a shell sources. shell: one of parsing.SHELLS."""
    import shtab

    for parser in tree.commands.values():
        for action in filter(takes_path, parser._actions):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(tree.root, shell)


def takes_path(action: Action) -> bool:
    return action.dest in PATHS
