"""edgewise COMMAND ...: the stage modules by a shorter name."""

import runpy
import sys

from edgewise.config.settings import nearest

COMMANDS = {
    "compose": ("stages.compose", "validate params.yaml and conf/ (--check), or write models/config.yaml"),
    "probe": ("stages.probe_device", "check the device and print what it is"),
    "sweep": ("edgewise.cli.sweep", "many sets of choices, each an experiment, judged together"),
    "study": ("edgewise.cli.study", "a question with choices of its own, answered beside your project"),
    "inspect": ("edgewise.inspect.command", "what a model file expects and is, and the yaml with which it runs"),
    "bundle": ("stages.bundle", "the chosen variant as a folder for the device; --to device puts it there"),
    "report": ("stages.report", "the table of the last run (--show), or a gate for CI (--check)"),
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: edgewise COMMAND [ARGUMENTS]", *(f"  {key:8} {text}" for key, (_, text) in COMMANDS.items()), sep="\n")
    elif name not in COMMANDS:
        sys.exit(f"error: {name!r} is no command; {nearest(name, COMMANDS)}")
    else:
        module = COMMANDS[name][0]
        sys.argv = [f"edgewise {name}", *sys.argv[2:]]
        runpy.run_module(module, run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
