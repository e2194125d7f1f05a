"""Everything that a project's params.yaml asks for, up to its variants, in one process. Run in the project's folder.

    python -m benchmarks.article.make

A variant that cannot be made ends it with the reason: here each of them is needed.
"""

from pathlib import Path

from stages import compose, convert, prepare_data, quantize, train_export
from stages.core import artifact, config
from stages.core.errors import run_main


def main() -> None:
    compose.main()
    prepare_data.main()
    train_export.main()
    configuration, source = config.read(), artifact.read(Path("models/source"))
    for name, form in configuration.formats.items():
        if form.used:
            convert.convert(name, form, source)
    for variant in configuration.variants.values():
        quantize.quantize(variant, artifact.read(Path("models") / variant.format), configuration)


if __name__ == "__main__":
    run_main(main)
