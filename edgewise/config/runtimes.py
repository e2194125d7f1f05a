"""Which runtime each format has on this machine, by version, as compose writes it into models/config.yaml under `runtimes`.

Stages that run a model depend on the entry of its format alone, so that installing or updating one runtime makes again what is of that
format and nothing else. Nothing is imported here to find a version.
"""

import importlib.util
from collections.abc import Iterable, Mapping

from edgewise.config.schema import Format, part

MISSING = "missing"
UNKNOWN = "of unknown version"
EXPORTER = "torch"  # exports to the files of some formats


def installed_runtimes(formats: Mapping[str, Format]) -> dict[str, dict[str, str]]:
    """{format: {"run": what runs its models, "make": what also takes part in making them}}, as words `PACKAGE VERSION`."""
    modules = {name: form.module for name, form in formats.items()}
    return {name: {"run": describe(runtimes(module)), "make": describe(making_packages(module))} for name, module in modules.items()}


def runtimes(module: str) -> list[str]:
    """The top-level import names of what runs the models of a format; the runtime is the last."""
    run = part(module, "run")
    return [str(name).partition(".")[0] for name in (*run.COMPANIONS, run.RUNTIME)]


def own_packages(module: str) -> dict[str, str]:
    """Import name -> extra of the packages that come with the format's own extra: the one that installs its runtime."""
    requires, (*_, name) = part(module, "make").REQUIRES, runtimes(module)
    return {package: extra for package, extra in requires.items() if extra == requires.get(name)}


def making_packages(module: str) -> list[str]:
    """The import names of what takes part in making the files of a format: its own packages, and torch where torch exports to them, which
    other sources do without."""
    return [*own_packages(module), *({EXPORTER} & part(module, "make").REQUIRES.keys() - own_packages(module).keys())]


def describe(packages: Iterable[str]) -> str:
    return ", ".join(f"{name} {version(name)}" for name in sorted(packages))


def version(package: str) -> str:
    """The version of the distribution that provides an import name. MISSING where there is none."""
    if importlib.util.find_spec(package) is None:
        return MISSING
    from importlib import metadata  # 20 ms, which stages spare that take nothing but MISSING from here

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        owners = metadata.packages_distributions().get(package, [])  # takes 0.3 s; few are called otherwise than what they provide
        return metadata.version(owners[0]) if owners else UNKNOWN
