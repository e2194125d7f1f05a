"""What pyproject.toml cannot say: the wheel carries the files of a new project (edgewise/cli/template.py)."""

import atexit
import shutil
import sys
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build import build
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))  # a build backend does not look here by itself

from edgewise.cli import template  # noqa: E402

TARGET = Path("edgewise/cli") / template.INSTALLED.name


class BuildElsewhere(build):
    """In a folder of its own: pip builds in the checkout, where two installs at once take files from each other, and where modules of
    earlier builds lie, which would get into the wheel too."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.build_base = tempfile.mkdtemp(prefix="edgewise-build-")
        atexit.register(shutil.rmtree, self.build_base, ignore_errors=True)


class BuildWithTemplate(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            template.copy(ROOT, Path(self.build_lib) / TARGET)

    def get_source_files(self) -> list[str]:
        """Also what the source distribution holds: the same wheel can be built from it."""
        return [*super().get_source_files(), *map(str, template.files(ROOT))]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        own = [] if self.editable_mode else [str(Path(self.build_lib) / TARGET / name) for name in template.files(ROOT)]
        return [*super().get_outputs(include_bytecode), *own]


setup(cmdclass={"build": BuildElsewhere, "build_py": BuildWithTemplate})
