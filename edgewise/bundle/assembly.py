"""Make the bundle of the chosen variant, and send it to the device."""

from pathlib import Path

from edgewise.artifacts import artifact, records
from edgewise.artifacts.artifact import Manifest
from edgewise.bundle import card, contents, delivery
from edgewise.config import schema
from edgewise.errors import ConfigError

MODELS = Path("models")
BUNDLE = MODELS / "bundle"


def make_bundle() -> None:
    """Write models/bundle for the chosen variant, or a manifest with status `none` and the reason where nothing is chosen."""
    settings, summary = schema.read(), records.read_summary()
    if summary.chosen is None:
        artifact.write_status(BUNDLE, Manifest(kind="bundle", status="none", reason=summary.chosen_reason))
        print(f"bundle: none, nothing is chosen: {summary.chosen_reason}")
        return
    chosen = contents.Chosen.read(settings, summary, summary.chosen, MODELS)
    with artifact.building(BUNDLE) as folder:
        contents.write_contents(chosen, folder)
        card.write_card(chosen, folder)
        made = Manifest(kind="bundle", format=chosen.variant.format, scheme=chosen.variant.scheme, labels=chosen.evaluated.labels)
        artifact.write(folder, made)
        contents.write_checksums(folder)  # last: the checksums cover the manifest too
    print(f"bundle: {summary.chosen} in {BUNDLE}; copy the folder, then: python infer.py --help")


def send_bundle() -> None:
    """Run models/bundle on the configured device once. Raises ConfigError without a bundle, DeviceError where it gives no answer."""
    made = artifact.read(BUNDLE)
    if not made.ok:
        raise ConfigError(f"{BUNDLE} is {made.status}: {made.reason}; a budget in params.yaml (budget.name) chooses a variant to bundle")
    settings = schema.read()
    place, answer = delivery.run_on_device(settings.device, BUNDLE, MODELS / "data")
    print(f"bundle: on {settings.device.name} in {place}; its answer for the first test sample: {answer}")
