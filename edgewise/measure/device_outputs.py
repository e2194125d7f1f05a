"""Check whether the device computes what this machine computes, by the outputs of the same file for the same test samples.

Both machines take the samples one by one, on the same number of threads. models/evaluate holds outputs of whole batches, which is another
computation: dynamic quantization finds the range of its activations over all that a call is given.
"""

from base64 import b64decode
from pathlib import Path, PurePosixPath

import numpy as np

from edgewise.agent import ragged
from edgewise.agent.protocol import ProtocolFault
from edgewise.artifacts.records import Agreement
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Variant
from edgewise.errors import ConfigError, VariantFailed
from edgewise.measure.runs import Event, PlacedVariant
from edgewise.proof import isolation
from edgewise.stats.agreement import as_rows, sqnr_db

Arrays = dict[str, np.ndarray]
INPUTS_FILE = "agreement.npz"
IDENTICAL, WITHIN = "identical", "within tolerance"


def store_feeds(samples: Samples, count: int, folder: Path, *, needed: bool = False) -> Arrays:
    """Write and return the feeds of `count` samples, spread evenly over the test split so that classes stored in order are all there.

    For 0 nothing is written, and {} is returned. needed: nothing else is done on this device, so 0 is not allowed either. ConfigError
    for a count that is not allowed.
    """
    if count == 1 or needed and count == 0:
        allowed = "at least 2, since outputs are all that is compared on an emulated device" if needed else "0 (not compared) or at least 2"
        raise ConfigError(f"bench.agreement_samples: {count} must be {allowed}")
    if count == 0:
        return {}
    test = samples.indices("test")
    feeds = samples.feeds(test[np.linspace(0, len(test) - 1, min(count, len(test))).round().astype(int)])
    np.savez(folder / INPUTS_FILE, **ragged.pack(feeds))  # type: ignore[arg-type]
    return feeds


def compute_on_device(placed: PlacedVariant, feeds: Arrays) -> Arrays:
    """The outputs on the device, where INPUTS_FILE lies beside the other inputs; {} without feeds."""
    inputs = PurePosixPath(placed.fields["inputs"]).with_name(INPUTS_FILE)
    return unpack_outputs(placed.outputs(str(inputs), len(next(iter(feeds.values())))).all("outputs")) if feeds else {}


def compute_on_host(variant: Variant, placed: PlacedVariant, feeds: Arrays, models: Path) -> Arrays:
    """The outputs on this machine, with the settings used on the device; {} without feeds."""
    folder = models / "variants" / variant.name
    return isolation.compute_outputs(variant.module, folder, dict(placed.fields["settings"]), feeds, batch=1) if feeds else {}


def unpack_outputs(events: list[Event]) -> Arrays:
    """The outputs in the events by name, [n, ...] or of various sizes (see agent.ragged). ProtocolFault if the device sent no arrays."""
    try:
        samples = [{name: unpack_array(**packed) for name, packed in event["arrays"].items()} for event in events]
        return {name: ragged.join([sample[name] for sample in samples]) for name in samples[0]}
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolFault("bad_field", f"outputs: {error}") from error


def unpack_array(dtype: str, shape: list[int], base64: str) -> np.ndarray:
    return np.frombuffer(b64decode(base64, validate=True), np.dtype(dtype)).reshape(shape)


def compare(host: Arrays, device: Arrays, variant: Variant) -> Agreement:
    """The agreement of outputs [n, ...]: SQNR and difference of the worst output, predictions of the first one. VariantFailed for another
    name or shape, NaN, or too low an SQNR."""
    first, what = next(iter(host)), f"{variant.name} computes something else on the device"
    count = len(host[first])
    if not host.keys() == device.keys() or any(ragged.find_shapes(host[name]) != ragged.find_shapes(device[name]) for name in host):
        raise VariantFailed(f"{what}: outputs {_describe_shapes(device)}, on this machine {_describe_shapes(host)}")
    host, device = ({name: as_rows(array) for name, array in side.items()} for side in (host, device))
    if not all(np.isfinite(outputs[name]).all() for outputs in (host, device) for name in host):
        raise VariantFailed(f"{variant.name} gives NaN or infinite outputs for some of {count} test samples")
    found = Agreement(
        samples=count,
        verdict=IDENTICAL if all(np.array_equal(host[name], device[name]) for name in host) else WITHIN,
        same_predictions_share=same_predictions_share(host[first], device[first]),
        sqnr_db=min(sqnr_db(host[name], device[name]) for name in host),
        least_sqnr_db=variant.min_device_sqnr_db,
        largest_difference=max(float(np.abs(host[name].astype(np.float64) - device[name]).max(initial=0)) for name in host),
    )
    if found.sqnr_db < found.least_sqnr_db:
        seen = f"largest difference {found.largest_difference:.3g}, {describe(found)}"
        needed = f"{variant.scheme} needs at least {found.least_sqnr_db:g} (min_device_sqnr_db)"
        raise VariantFailed(f"{what}: SQNR {found.sqnr_db:.1f} dB against this machine's outputs, {needed}; {seen}")
    return found


def same_predictions_share(host: np.ndarray, device: np.ndarray) -> float | None:
    """Share of the samples with the same argmax, from [n, ..., classes]; None if there is only one output, or none."""
    if host.ndim < 2 or host.shape[-1] < 2 or not host.size:
        return None
    return float(np.mean(host.argmax(axis=-1) == device.argmax(axis=-1)))


def describe(found: Agreement) -> str:
    share = found.same_predictions_share
    return f"{found.samples} samples" if share is None else f"{share:.0%} of {found.samples} answers the same"


def _describe_shapes(arrays: Arrays) -> str:
    return ", ".join(f"{name} {' '.join(str(list(shape)) for shape in ragged.find_shapes(array))}" for name, array in arrays.items())
