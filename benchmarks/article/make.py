"""Make the source and all variants of a project in one process. Run in the project's folder.

    python -m benchmarks.article.make

A conversion or a variant that cannot be made ends it with the reason, since each is needed.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from edgewise.artifacts import artifact
from edgewise.compress import float_models, pruned_sources, variants
from edgewise.config import schema
from edgewise.errors import EdgewiseError, VariantFailed, run_main
from stages import compose, prepare_data, train_export


def main() -> None:
    compose.main()
    prepare_data.main()
    train_export.main()
    configuration, source = schema.read(), artifact.read(Path("models/source"))
    if any(configuration.prunings.values()):
        pruned_sources.update(configuration, {})
    for name, form in configuration.formats.items():
        if form.used:
            with needed(f"the conversion to {name}"):
                float_models.convert(name, form, source)
    for variant in configuration.variants.values():
        with needed(variant.name):
            variants.make_variant(variant, artifact.read(Path("models") / variant.format), configuration)


@contextlib.contextmanager
def needed(what: str) -> Iterator[None]:
    """EdgewiseError in the place of VariantFailed, with which a stage ends with exit code 0: one of many variants may fail."""
    try:
        yield
    except VariantFailed as failure:
        raise EdgewiseError(f"{what}: {failure}") from None


if __name__ == "__main__":
    run_main(main)
