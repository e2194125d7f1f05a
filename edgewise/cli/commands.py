"""Every command: its options, and the help that its function's docstring holds. Functions import what they need when they are called."""

from argparse import SUPPRESS, Namespace
from pathlib import Path

from edgewise.cli import checking
from edgewise.cli.parsing import SHELLS, Command, Parser, build_tree, make_script
from edgewise.errors import UserError

CHECKED = """0 done; with --check 1 where a gate fails and 4 where none fails and one is not resolved;
1 also where a result file is missing or damaged; 2 a mistake in the command"""
COMPARED = """0 both releases run it, whatever they differ by; 1 one of them cannot; 2 a mistake in the
command, or no such release; 3 the network or the disk"""
PARAMS, CONF = Path("params.yaml"), Path("conf")


def init_options(parser: Parser) -> None:
    parser.add_argument("folder", metavar="DIR", help="a folder that is empty or does not exist yet; . for this one")


def init(given: Namespace) -> None:
    """reads:   the files of the installed package, and which packages are installed beside it
    writes:  dvc.yaml, params.yaml, conf/, stages/, .dvc/, .gitignore, .dvcignore; outside
             of any git repository also a new one, with a first commit

    params.yaml lists the variants whose formats can be made and run here; the others stand
    in it as comments, with the command that installs what they need. A folder that has
    files of these names already is left alone. On an error nothing is left.

    examples:
      edgewise init camera && cd camera && dvc repro
      edgewise init .                  # here, in an empty folder
      edgewise init tools/camera       # below a folder of your own repository
    """
    from edgewise.cli.init import create, describe_project

    if not given.folder:
        raise UserError("edgewise init: the folder's name is empty; for example: edgewise init camera")
    print(describe_project(create(Path(given.folder))))


def compose_options(parser: Parser) -> None:
    parser.add_argument("--check", action="store_true", help="only check, write nothing")


def compose(given: Namespace) -> None:
    """reads:   params.yaml, conf/
    writes:  models/config.yaml, which every stage reads; nothing with --check

    Each mistake is one line with the file, the key, the value and what is allowed.

    examples:
      edgewise compose --check
    """
    from edgewise.config.compose import compose as composed
    from edgewise.config.compose import write
    from edgewise.config.stage_code import depended_on

    config = composed(PARAMS, CONF)
    if given.check:
        print(f"params.yaml and conf/ are valid: {len(config.variants)} variants, reference {config.reference}")
    else:
        write(config, more=depended_on(config))


def probe(given: Namespace) -> None:
    """reads:   params.yaml, conf/; the device that they name
    writes:  nothing; `dvc repro` probes too and writes metrics/device.json

    Shows the processor, memory, installed runtimes, governor, sensors and limits of the
    device, in seconds; whether a bundle finds its packages there, and threads beyond its
    cores. Exit code 3 where it cannot be reached.

    examples:
      edgewise probe
    """
    from edgewise.cli import probing
    from edgewise.config.compose import compose as composed

    for line in probing.describe_device(composed(PARAMS, CONF)):
        print(line)


def doctor(given: Namespace) -> int:
    """reads:   this machine, this folder, params.yaml and conf/ where they are; the device that
             they name
    writes:  nothing

    Checks Python, disk, DVC, git, the settings, the runtimes of each format and the
    device. A line that begins with `fault` would stop a run and ends with the next step; a
    `note` is about something that this project does not need.

    examples:
      edgewise doctor
    """
    from edgewise.cli.doctor import print_findings

    return print_findings()


def inspect_options(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="a model file, or a folder that holds a SavedModel")
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="your data, for the YAML: a folder of pictures, of YOLO, COCO or VOC, with masks; .npz, .npy, .tsv, .csv",
    )
    parser.add_argument(
        "--schemes", metavar="A,B", help="the schemes to list; without it the usual four: fp32, fp16, int8-dynamic, int8-static"
    )
    parser.add_argument(
        "--full", action="store_true", help="print all of params.yaml with these sections; the description of the file goes to stderr"
    )
    parser.add_argument("--output", metavar="PATH", help="write all of params.yaml with these sections there; may be params.yaml itself")
    parser.add_argument("--whole", action="store_true", help=SUPPRESS)


def inspect(given: Namespace) -> None:
    """reads:   FILE: .onnx, .tflite, .keras, .h5, a SavedModel folder, .pt2, .safetensors;
             conf/ and params.yaml of the project, or those of a new one outside of a
             project
    writes:  nothing without --output; the YAML that it prints replaces the sections of the
             same names in params.yaml

    The meaning of inputs and outputs is guessed, and the file is run once with what is
    suggested. Labelled pictures decide more: how pixels are scaled, and how the boxes of a
    detector are read. Without --data the inputs are random, for a first look.

    examples:
      edgewise inspect own/model.onnx
      edgewise inspect own/detector.onnx --data own/data.yaml --output params.yaml && dvc repro
      edgewise inspect own/model.onnx --data own/pictures --schemes fp32,int8-static --full > params.yaml

    In the last example the shell empties params.yaml before the command starts: the other
    sections are then those of the last commit.
    """
    from edgewise.cli import template
    from edgewise.inspect import model_file, sections

    if given.whole:
        raise UserError("edgewise inspect: --whole is now called --full")
    project = Path() if CONF.is_dir() else template.root()
    schemes = tuple(given.schemes.split(",")) if given.schemes else sections.USUAL
    to = model_file.Destination(given.full, Path(given.output) if given.output else None)
    model_file.print_inspection(Path(given.file), project, given.data, schemes, to, template=template.root())


def sweep_options(parser: Parser) -> None:
    parser.add_argument("overrides", metavar="OVERRIDE", nargs="*", help="KEY=VALUE,VALUE ..., +search=NAME, hydra/launcher=NAME")
    parser.add_argument("--name", help="for metrics/sweeps/NAME.json; by default made from the overrides")
    parser.add_argument("-m", "--multirun", action="store_true", help=SUPPRESS)  # Hydra's own; a sweep always is one


def sweep(given: Namespace) -> int:
    """reads:   params.yaml, whose keys are the override keys; conf/sweep/; the whole project
             as it is now
    writes:  an experiment for each point (`dvc exp show --only-changed`),
             metrics/sweeps/NAME.json and .png, runs in MLflow; logs in .edgewise/sweeps/NAME

    Overrides are Hydra's: key=a,b tries both values, and several such keys every
    combination. None of your files is edited. To resume after an interruption, run the same
    command again: finished points are kept.

    examples:
      edgewise sweep ++variants.onnx-int8-static.calibration.method=minmax,entropy ++variants.onnx-int8-static.per_channel=true,false
      edgewise sweep +search=pareto                                  # a search instead of a grid, by conf/sweep/search/pareto.yaml
      edgewise sweep hydra/launcher=joblib hydra.launcher.n_jobs=2 ...    # two at a time; or submitit_local, submitit_slurm, ray
    """
    from edgewise.sweep import app

    if not given.overrides:
        raise UserError("edgewise sweep: nothing to sweep; give values with commas, for example: edgewise sweep train.epochs=1,2")
    return app.sweep([*(("--name", given.name) if given.name else ()), *given.overrides])


def study_options(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="a file of conf/studies/, without .yaml")
    parser.add_argument("overrides", metavar="OVERRIDE", nargs="*", help="KEY=VALUE, replaces a setting of the study")


def study(given: Namespace) -> None:
    """reads:   conf/studies/NAME.yaml in the place of params.yaml, and the whole project as it
             is now
    writes:  metrics/studies/NAME: its settings, metrics, report, page and figure, and what
             was gained. Its clone stays in .edgewise/studies/NAME

    Your params.yaml, metrics and models are not touched.

    examples:
      edgewise study smart-camera
      edgewise study smart-camera train.epochs=1      # the study with another setting
    """
    from edgewise.study.runner import run_and_show

    run_and_show(given.name, given.overrides)


def trust_options(parser: Parser) -> None:
    parser.add_argument("variants", metavar="VARIANT", nargs="*", help="two or more; by default one of integers and one of floats")
    parser.add_argument("--visits", type=int, default=8, metavar="N", help="measurements of each variant (default: 8)")
    parser.add_argument("--minutes", type=float, default=8.0, metavar="M", help="minutes over which they are spread (default: 8)")


def trust(given: Namespace) -> None:
    """reads:   the variants of the last `dvc repro`; the device, which must be the same
    writes:  .edgewise/visits, or the folder that EDGEWISE_VISITS names

    One measurement holds for its minutes. Here two variants are measured many times over
    some minutes; the variation between these visits is added to the interval of every
    variant on this device. The next `dvc repro` makes the report again and measures nothing.
    Run it again on another day: visits add up. Another device, governor or Python is another
    fingerprint, which begins without trust.

    examples:
      edgewise trust && dvc repro
      edgewise trust --visits 20 --minutes 40
      edgewise trust onnx-int8-static onnx-fp16
    """
    from edgewise.config import schema
    from edgewise.measure import trust as study

    settings = schema.read()
    study.check_plan(given.visits, given.minutes)
    names = study.choose_variants(settings, given.variants)
    print(f"{given.visits} visits of {' and '.join(names)} beside {settings.reference}, over {given.minutes:g} minutes or longer")
    study.run_study(settings, names, given.visits, given.minutes)
    print(study.describe_trust(settings))


def compare_options(parser: Parser) -> None:
    parser.add_argument("variant", metavar="VARIANT", help="a variant of params.yaml that was made")
    parser.add_argument("--with", dest="release", metavar="PACKAGE==VERSION", required=True, help="another release of its runtime")


def compare(given: Namespace) -> None:
    """reads:   models/variants/VARIANT, models/data; pip's index, as you have configured it
    writes:  .edgewise/environments: a Python environment with that release, kept for the
             next time

    Runs the same file under the installed release of its runtime and under another one, on
    this machine: which release broke it, or made it slower? Outputs are compared by port,
    latency in turns. Nothing of your own environment changes.

    examples:
      edgewise compare onnx-int8-static --with onnxruntime==1.20.1
    """
    from edgewise.config import schema
    from edgewise.devices.environments import Requirement
    from edgewise.measure import releases

    requirement = Requirement.parse(given.release)
    for line in releases.describe_compared(releases.compare_releases(schema.read(), given.variant, requirement)):
        print(line)


def report_options(parser: Parser) -> None:
    checking.add_options(parser)
    parser.add_argument("--verbose", action="store_true", help="all lines: warnings, explanations, memory, agreement")


def report(given: Namespace) -> int:
    """reads:   metrics/summary.json, which the report stage wrote in the last `dvc repro`
    writes:  nothing; with --check the FILE of --json and of --junit

    A gate passes where the whole 95 % interval shows what is asked for, fails where it shows
    the contrary, and is not resolved where it shows neither. docs/ci.md has examples.

    examples:
      edgewise report
      dvc repro && edgewise report --check      # gates for CI: no variant failed, the budget is kept
      edgewise report --check --faster-than onnx-int8-static:1.5 --equivalent onnx-int8-static:0.5
      edgewise report --check --no-worse-than-last --no-slower-than-last --rev main
    """
    from edgewise.artifacts import records
    from edgewise.report import terminal

    checking.refuse_without_check(given)
    summary = records.read_summary()
    if given.check:
        return checking.check(given, summary)
    terminal.print_report(summary, verbose=given.verbose)
    print(terminal.next_steps(summary))
    return 0


def bundle_options(parser: Parser) -> None:
    parser.add_argument(
        "--to", metavar="DEVICE", help="copy the bundle to the configured device and run it there once; its name, or the word device"
    )
    parser.add_argument("--variant", metavar="NAME", help="bundle this variant instead of the chosen one, into models/bundles/NAME")


def bundle(given: Namespace) -> None:
    """reads:   what the last `dvc repro` made and chose; with --to, models/bundle
    writes:  models/bundle: the chosen variant with the code that runs it, a card and
             checksums. With --to, a copy of it on the device; with --variant,
             models/bundles/NAME

    `dvc repro` makes the bundle too. --to runs it on the device, on one sample of the test
    split, and prints its answer.

    examples:
      edgewise bundle --to device
      edgewise bundle --variant openvino-int8-static
    """
    from edgewise.bundle import assembly

    if given.variant is not None and given.to is not None:
        raise UserError("edgewise bundle: --to copies the chosen variant's bundle; give it without --variant, and copy the other by scp")
    if given.variant is not None:
        assembly.bundle_variant(given.variant)
    elif given.to is not None:
        assembly.send_bundle(given.to)
    else:
        assembly.make_bundle()


def track_options(parser: Parser) -> None:
    parser.add_argument(
        "--force",
        action="store_true",
        help="look at every run in MLflow, also those written before, and move `current` and the aliases back to them",
    )
    parser.add_argument("--sweep", metavar="NAME", help="write the runs of this sweep instead")


def track(given: Namespace) -> None:
    """reads:   metrics/, models/ and dvc.lock of the last `dvc repro`; with --sweep,
             metrics/sweeps/NAME.json
    writes:  runs in MLflow: mlflow.db and mlartifacts/ in this folder, or the server that
             MLFLOW_TRACKING_URI, or tracking_uri of params.yaml, names

    `dvc repro` and sweeps do this themselves. The command is for afterwards, when the
    server was down or has lost runs.

    examples:
      edgewise track --force
      edgewise track --sweep method-1f2e3d4c
    """
    from edgewise.track import tracking

    if given.sweep:
        tracking.track_sweep(given.sweep)
    else:
        tracking.track_pipeline(force=given.force)


def completion_options(parser: Parser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")


def completion(given: Namespace) -> None:
    """reads:   nothing
    writes:  nothing; the shell reads what it prints

    examples:
      eval "$(edgewise completion bash)"                                  # in ~/.bashrc
      edgewise completion zsh > ~/.zfunc/_edgewise                        # a folder of $fpath
      edgewise completion fish > ~/.config/fish/completions/edgewise.fish
    """
    print(make_script(build_tree(COMMANDS), given.shell))


COMMANDS = {
    "init": Command("make a new project in a folder", init, init_options),
    "compose": Command("check params.yaml and conf/, and write models/config.yaml", compose, compose_options),
    "doctor": Command(
        "check this machine and this project, with the next step for each problem",
        doctor,
        codes="0 nothing would stop a run; 1 something would",
    ),
    "probe": Command("show the device: processor, memory, runtimes, sensors", probe),
    "inspect": Command("show the inputs and outputs of a model file, and print the YAML that runs it", inspect, inspect_options),
    "sweep": Command("run many combinations of settings, each as an experiment, and compare them", sweep, sweep_options),
    "study": Command("run a study of conf/studies/ in a clone; your project stays as it is", study, study_options),
    "trust": Command("measure how much latency ratios vary from one measurement to the next on this device", trust, trust_options),
    "compare": Command("run a variant's file under another release of its runtime", compare, compare_options, codes=COMPARED),
    "report": Command("show the table of the last run, or check it in CI", report, report_options, codes=CHECKED),
    "bundle": Command("write the chosen variant as a folder that runs by itself, or copy it to the device", bundle, bundle_options),
    "track": Command("write the results into MLflow again", track, track_options),
    "completion": Command("print the completion script of a shell", completion, completion_options),
}
