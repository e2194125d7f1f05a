"""The command line: help, mistakes in one line, exit codes, and which function of the library a command calls."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from edgewise.cli import template
from edgewise.cli.commands import COMMANDS
from edgewise.cli.main import dispatch, tree
from edgewise.errors import MissingExtra, UserError
from tests.conftest import ROOT


def edgewise(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgewise.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


@pytest.fixture
def text(capsys):
    """What a command prints."""

    def run(*arguments: str) -> str:
        dispatch(arguments)
        return capsys.readouterr().out

    return run


def test_help_names_every_command(text):
    said = text("--help")
    assert said == text() == text("-h")
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", said, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_does_nothing(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # no project, so anything else than help would fail
    with pytest.raises(SystemExit) as left:
        dispatch([name, "--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0 and not list(tmp_path.iterdir())
    assert said.startswith(f"usage: edgewise {name} ") and f"{COMMANDS[name].summary[1:]}.\n" in said
    for part in ("\nexit codes: 0 ", "\nreads: ", "\nwrites: "):
        assert part in said, part
    assert re.search(rf"\nexamples:\n  .*edgewise {name}", said)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_the_help_are_accepted(name):
    """Every option of an example is one that the command has."""
    examples = (COMMANDS[name].run.__doc__ or "").partition("examples:")[2]
    commands = re.findall(rf"edgewise {name}(.*)$", examples, re.MULTILINE)
    assert commands
    for command in commands:
        tree().commands[name].parse(re.split(r" #|&&|>|\)\"", command)[0].split())


def test_help_is_quick():
    """Seconds of processor time, the best of three: unlike the time on the clock, not what others do on this machine."""

    def seconds() -> float:
        process = subprocess.Popen([sys.executable, "-m", "edgewise.cli.main", "--help"], cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return used.ru_utime + used.ru_stime

    assert min(seconds() for _ in range(3)) < 0.3


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv[1:] = ['--help']; from edgewise.cli.main import dispatch; dispatch(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not {"numpy", "yaml", "hydra", "omegaconf", "dvc", "mlflow", "torch"} & set(done.stdout.split())


def test_help_says_what_runs_the_pipeline(text):
    assert "`dvc repro`" in text("--help") and "there is no `edgewise run`" in text("--help")


@pytest.mark.parametrize(("typed", "offered"), [("ske", ""), ("rep", "report"), ("track --fo", "--force"), ("inspect --out", "--output")])
def test_bash_completes_commands_and_options(text, typed, offered):
    words = f"edgewise {typed}".split()
    ask = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _shtab_edgewise; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash"], input=f"{text('completion', 'bash')}\n{ask}\n", capture_output=True, text=True)
    assert done.stdout.strip() == offered, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells_name_every_command(text, shell):
    said = text("completion", shell)
    assert all(name in said for name in COMMANDS) and "force" in said


def test_version(text):
    assert text("--version") == f"edgewise {metadata.version('edgewise')}\n"


MISTAKES = [
    (["repot"], "unknown command 'repot'; did you mean 'report'?"),
    (["--hepl"], "unknown command '--hepl'"),
    (["run"], "unknown command 'run'. DVC runs the pipeline of a project: `dvc repro`"),
    (["completion", "csh"], "edgewise completion: argument SHELL: invalid choice: 'csh' (choose from 'bash', 'zsh', 'fish')"),
    (["report", "--chek"], "edgewise report: unknown option '--chek'; did you mean '--check'?"),
    (["report", "--show"], "edgewise report: unknown option '--show'; "),
    (["report", "all"], "edgewise report: 'all' is one argument too many"),
    (["compose", "--check=yes"], "edgewise compose: argument --check: ignored explicit argument 'yes'"),
    (["bundle", "--t", "device"], "edgewise bundle: unknown option '--t'; "),
    (["track", "--sweep"], "edgewise track: argument --sweep: expected one argument"),
    (["track", "--forse"], "edgewise track: unknown option '--forse'; did you mean '--force'?"),
    (["inspect"], "edgewise inspect: the following arguments are required: FILE"),
    (["inspect", "x.onnx", "--whole"], "edgewise inspect: --whole is now called --full"),
    (["inspect", "gone.onnx"], "gone.onnx does not exist"),
    (["sweep"], "edgewise sweep: nothing to sweep"),
    (["sweep", "--nmae", "first", "train.epochs=1,2"], "edgewise sweep: unknown option '--nmae'; did you mean '--name'?"),
    (["sweep", "train.epochs=1,2", "--name", "a/b"], "--name 'a/b': "),
    (["study", "smart-camra"], "unknown study 'smart-camra' in conf/studies; did you mean 'smart-camera'?"),
    (["init"], "edgewise init: the following arguments are required: DIR"),
    (["init", ""], "edgewise init: the folder's name is empty"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_mistake_is_one_line(arguments, said, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError) as error:
        dispatch(arguments)
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def test_exit_codes(tmp_path):
    assert edgewise("--help").returncode == 0
    done = edgewise("repot")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    for command in ("compose", "probe", "report", "bundle", "track"):  # outside of any project
        done = edgewise(command, folder=tmp_path)
        assert done.returncode in (1, 2) and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, (command, done.stderr)
    assert not list(tmp_path.iterdir())


def test_a_reader_who_leaves_early_sees_no_traceback():
    code = "from edgewise.errors import run_main; run_main(lambda: [print(n, flush=True) for n in range(10**5)] and 0)"
    command = f"{sys.executable} -c '{code}' | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 141)


def test_a_reader_who_is_gone_before_a_short_answer_sees_nothing():
    """It waits in the buffer until the end."""
    code = "from edgewise.errors import run_main; run_main(lambda: print(1))"
    read, write = os.pipe()
    os.close(read)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.stderr, done.returncode) == ("", 141)


def test_the_commands_that_a_run_prints_work_in_a_path_with_blanks():
    """A shell gives them one argument."""
    from edgewise.report.terminal import LOCAL_RUNS
    from edgewise.track.tracking import describe_ui

    for said in (LOCAL_RUNS, describe_ui("sqlite:////home/me/my projects/mlflow.db")):
        command = re.search(r"mlflow ui --backend-store-uri (\"[^\"]*\"|'[^']*')", said)
        shown = subprocess.run(["bash", "-c", f"printf '%s|' {command[1]}"], env={"PWD": "/my projects"}, capture_output=True, text=True)
        assert shown.stdout.count("|") == 1 and shown.stdout.endswith("mlflow.db|")


def test_options_may_stand_anywhere(monkeypatch):
    from edgewise.sweep import app

    monkeypatch.setattr(app, "sweep", lambda arguments: given.append(arguments) or 0)
    given: list[list[str]] = []
    assert dispatch(["sweep", "-m", "a=1,2", "--name", "first", "~b", "+search=pareto", "hydra/launcher=joblib"]) == 0
    assert dispatch(["sweep", "a=-1,2", "--multirun"]) == 0
    assert given == [["--name", "first", "a=1,2", "~b", "+search=pareto", "hydra/launcher=joblib"], ["a=-1,2"]]


def test_compose_checks_and_writes(tmp_path, monkeypatch, text):
    template.copy(ROOT, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "params.yaml and conf/ are valid: 13 variants, reference onnx-fp32" in text("compose", "--check")
    assert not (tmp_path / "models").exists()
    text("compose")
    written = (tmp_path / "models/config.yaml").read_bytes()
    (tmp_path / "models/config.yaml").unlink()
    subprocess.run([sys.executable, "-m", "stages.compose"], check=True)
    assert (tmp_path / "models/config.yaml").read_bytes() == written, "the command and the stage write the same"


def test_dvc_breaks_no_line_of_params_yaml(tmp_path):
    """`dvc exp run -S` writes the file anew, with lines of 80 characters."""
    from dvc.utils.serialize import modify_yaml

    shutil.copy(ROOT / "params.yaml", tmp_path)
    with modify_yaml(tmp_path / "params.yaml") as tree:
        tree["seed"] = 3
    before, after = ((folder / "params.yaml").read_text().replace("seed: 0", "seed: 3").splitlines() for folder in (ROOT, tmp_path))
    assert [line.split() for line in after] == [re.sub(r"(?<=\w): null(?= #|$)", ":", line).split() for line in before]


def test_probe_writes_nothing(tmp_path, monkeypatch, text):
    template.copy(ROOT, tmp_path)
    monkeypatch.chdir(tmp_path)
    said = text("probe")
    assert all(re.search(rf"^{name} +\S", said, re.MULTILINE) for name in ("cpu", "memory", "python", "sensors"))
    assert re.search(r"^bundle +pillow \d", said, re.MULTILINE)
    assert not (tmp_path / "models").exists() and not (tmp_path / "metrics").exists()


def test_the_project_s_own_modules_can_be_named_in_its_settings(tmp_path):
    """As with `python -m`, the current folder comes first in sys.path, also in the installed command."""
    template.copy(ROOT, tmp_path)
    (tmp_path / "mine.py").write_text("from edgewise.data.digits import *\nprint('imported')\n")
    (tmp_path / "conf/data/mine.yaml").write_text((tmp_path / "conf/data/digits.yaml").read_text().replace("edgewise.data.digits", "mine"))
    params = (tmp_path / "params.yaml").read_text().replace("data: {name: digits", "data: {name: mine")
    (tmp_path / "params.yaml").write_text(params)
    command = [str(Path(sys.executable).parent / "edgewise"), "compose", "--check"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "imported" in done.stdout, done.stderr


@pytest.mark.parametrize("stage", ["compose", "report", "bundle", "track"])
def test_the_stage_scripts_take_no_options(stage, tmp_path):
    """What they once took is a command's now, so a user may change or replace the script."""
    command = [sys.executable, "-m", f"stages.{stage}", "--force"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert (
        done.stderr.startswith(f"error: stages.{stage} takes no arguments, not '--force'; ") and f"`edgewise {stage} --help`" in done.stderr
    )


def test_a_missing_extra_is_installed_with_the_constraints_of_a_checkout_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert str(MissingExtra("nncf", "openvino")).endswith(": pip install -c constraints.txt 'edgewise[openvino]'")
    monkeypatch.chdir(tmp_path)
    assert str(MissingExtra("nncf", "openvino")).endswith(": pip install 'edgewise[openvino]'")
