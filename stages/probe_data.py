"""Notice that the data changed: data settings -> metrics/data.json. Runs always; the stages after it only when the digest differs."""

from pathlib import Path

from stages.core import artifact
from stages.core.config import Plugin, read
from stages.core.errors import run_main
from stages.core.settings import build

TARGET = Path("metrics/data.json")


def probe(data: Plugin, target: Path = TARGET) -> None:
    module = data.load()
    found = module.probe(build(module.Settings, data.settings, "data"))
    artifact.write_json(target, {"schema": artifact.SCHEMA, "name": data.name, **found})


def main() -> None:
    probe(read().data)


if __name__ == "__main__":
    run_main(main)
