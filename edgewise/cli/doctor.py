"""`edgewise doctor`: what this machine, this folder and the configured device still need for a run, one line each."""

import importlib
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

import yaml

from edgewise.agent.packages import list_packages
from edgewise.artifacts import dvc_files
from edgewise.cli import init, template
from edgewise.config import compose, runtimes, schema
from edgewise.errors import EdgewiseError

OK, NOTE, FAULT = "ok", "note", "fault"
OLDEST = (3, 11)
LEAST_FREE_GB = 2.0  # the default run leaves 1.1 GB: the variants, DVC's cache and MLflow's copies of them
PARAMS, CONF = Path("params.yaml"), Path("conf")


@dataclass(frozen=True)
class Finding:
    """state: OK; NOTE, what is missing but not needed by this project; FAULT, what a run here would stop at. advice: the next step."""

    what: str
    state: str
    found: str
    advice: str = ""


def examine(folder: Path = Path()) -> Iterator[Finding]:
    """Every check, in the order in which a run would meet them. The device comes last: it may take seconds."""
    yield check_python()
    yield check_disk(folder)
    yield check_writable(folder)
    yield check_dvc(folder)
    yield from check_git(folder)
    yield from check_pulled(folder)
    settings, finding = check_settings(folder)
    yield finding
    yield from check_formats(folder, settings)
    if settings:
        yield from check_model(settings)
        yield from check_device(settings)


def print_findings(folder: Path = Path()) -> int:
    """Print each finding as soon as it is known. The exit code: 1 where one of them is a fault."""
    faults = 0
    for finding in examine(folder):
        faults += finding.state == FAULT
        print(format_finding(finding), flush=True)
    print(
        f"\n{faults} of these would stop a run here, or fail the variants that are named"
        if faults
        else "\nnothing here would stop a run: dvc repro"
    )
    return 1 if faults else 0


def format_finding(finding: Finding) -> str:
    advice = f"; {finding.advice}" if finding.advice else ""
    return f"{finding.state:5}  {finding.what:10} {finding.found}{advice}"


def check_python() -> Finding:
    found = f"{platform.python_version()}, {sys.prefix}"
    if sys.version_info < OLDEST:
        return Finding("python", FAULT, found, f"Edgewise needs {'.'.join(map(str, OLDEST))} or newer")
    return Finding("python", OK, found)


def check_disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 1e9
    if free < LEAST_FREE_GB:
        return Finding("disk", FAULT, f"{free:.1f} GB free here", f"a run needs about {LEAST_FREE_GB:g} GB: free some, or move the project")
    return Finding("disk", OK, f"{free:.0f} GB free here")


def check_writable(folder: Path) -> Finding:
    """The folder, and those that a run writes into, as far as they exist."""
    for path in (folder, *(folder / name for name in ("models", "metrics", ".dvc"))):
        try:
            if path.is_dir():
                tempfile.TemporaryFile(dir=path).close()
        except OSError as error:
            return Finding("folder", FAULT, f"{path.absolute()} cannot be written: {error.strerror}", f"chmod -R u+w {path}, as its owner")
    return Finding("folder", OK, f"{folder.absolute()} can be written")


def check_dvc(folder: Path) -> Finding:
    command = shutil.which("dvc")
    if command is None or util.find_spec("dvc") is None:
        return Finding("dvc", FAULT, "the command dvc is not in PATH", "; ".join(init.environment_lines()) or "pip install 'dvc>=3.67'")
    elsewhere = init.environment_lines()
    if elsewhere:
        return Finding("dvc", FAULT, f"{command} is of another environment than this edgewise", elsewhere[0])
    if (folder / "dvc.yaml").is_file() and not (folder / ".dvc").is_dir():
        return Finding("dvc", FAULT, f"{metadata.version('dvc')}, but this folder has no .dvc", "dvc init --subdir")
    return Finding("dvc", OK, metadata.version("dvc"))


def check_git(folder: Path) -> Iterator[Finding]:
    """Whether git is there, with a repository and a name for commits. `dvc repro` needs no commit; experiments and sweeps do."""
    try:
        repository = init.repository_of(folder)
    except EdgewiseError as error:
        yield Finding("git", FAULT, str(error))
        return
    if repository is None:
        state = FAULT if (folder / ".dvc").is_dir() else NOTE
        yield Finding("git", state, "no repository here, which DVC needs", "git init; git add -A; git commit -m Start")
    elif init.git(folder, "rev-parse", "--verify", "--quiet", "HEAD").returncode:
        yield Finding("git", NOTE, f"{repository} has no commit yet", "experiments and sweeps need one: git add -A; git commit -m Start")
    else:
        yield Finding("git", OK, str(repository))
    if not init.knows_user(folder):
        yield Finding(
            "git user",
            NOTE,
            "git does not know your name, and experiments commit",
            'git config --global user.name "You"; ... user.email you@example.com',
        )


def check_pulled(folder: Path) -> Iterator[Finding]:
    """Each file NAME.dvc that git knows, or would add, whose data or model is not here. None without git, which check_git tells."""
    if shutil.which("git") is None:
        return
    listed = init.git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.dvc").stdout
    for name in sorted({*filter(None, listed.split("\0"))}):
        try:
            missing = dvc_files.missing_outputs(folder / name) if (folder / name).is_file() else []
        except EdgewiseError as error:
            yield Finding("dvc files", FAULT, str(error))
            continue
        for path in missing:
            yield Finding("dvc files", FAULT, f"{path} is not here, {name} says that DVC keeps it", dvc_files.PULL)


def check_settings(folder: Path) -> tuple[schema.Config | None, Finding]:
    """params.yaml over conf/, checked as `edgewise compose --check` does."""
    if not (folder / PARAMS).exists():
        return None, Finding("settings", NOTE, "no params.yaml here", "edgewise init camera makes a project; cd into it and try again")
    try:
        config = compose.compose(folder / PARAMS, folder / CONF)
    except EdgewiseError as error:
        return None, Finding("settings", FAULT, str(error))
    return config, Finding("settings", OK, f"{len(config.variants)} variants, reference {config.reference}")


def check_formats(folder: Path, settings: schema.Config | None) -> Iterator[Finding]:
    """Each format of conf/: the packages that make and run it here, or what installs them."""
    conf = folder / CONF if (folder / CONF).is_dir() else template.root() / CONF
    used = {variant.format for variant in settings.variants.values()} if settings else set()
    missing = init.missing_formats(conf)
    for path in sorted((conf / "format").glob("*.yaml")):
        module = yaml.safe_load(path.read_text(encoding="utf-8"))["module"]
        found = runtimes.describe(runtimes.own_packages(module))
        if path.stem in missing:
            needed = path.stem in used
            why = " and variants of params.yaml need it" if needed else ""
            yield Finding(path.stem, FAULT if needed else NOTE, f"{found}{why}", init.pip(missing[path.stem]))
        else:
            yield Finding(path.stem, OK, found)


def check_model(settings: schema.Config) -> Iterator[Finding]:
    """The packages that the source of params.yaml needs."""
    requires: Mapping[str, str] = getattr(importlib.import_module(settings.model.module), "REQUIRES", {})
    lacking = [package for package in requires if runtimes.version(package) == runtimes.MISSING]
    if lacking:
        yield Finding("model", FAULT, f"{settings.model.name} needs {', '.join(lacking)}", init.pip(requires[lacking[0]]))
    else:
        yield Finding("model", OK, " ".join((settings.model.name, f"({runtimes.describe(requires)})" if requires else "")).strip())


def check_device(settings: schema.Config) -> Iterator[Finding]:
    """Reach the device and ask what it has; each runtime that variants need and the device lacks is a fault."""
    from edgewise.measure import device_facts

    try:
        found = device_facts.probe(settings)
    except EdgewiseError as error:
        yield Finding("device", FAULT, f"{settings.device.name}: {error}", "docs/devices.md says what each fault means")
        return
    yield Finding("device", OK, f"{settings.device.name}: {found['facts']['cpu']}, {found['facts']['cores_allowed']} cores")
    yield from find_lacking(settings, found["packages"])


def find_lacking(settings: schema.Config, packages: Mapping[str, Any]) -> Iterator[Finding]:
    owners: dict[str, list[str]] = {}
    for name, variant in settings.variants.items():
        for package in list_packages(schema.part(variant.module, "run")).values():
            owners.setdefault(package, []).append(name)
    for package, names in owners.items():
        if not packages.get(package):
            python = settings.device.settings.get("python", Path(sys.executable).name)
            advice = f"there: {python} -m pip install {package}"
            yield Finding("device", FAULT, f"{settings.device.name} lacks {package}, which {', '.join(names)} need", advice)
