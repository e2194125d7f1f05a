"""Whether the device computes what this machine computes: the outputs of one file for some test samples, made here and there.

Both sides take the samples one by one, on the same number of threads. models/evaluate holds outputs of whole batches, which is another
computation: dynamic quantization finds the range of its activations over all that a call is given.
"""

from base64 import b64decode
from pathlib import Path, PurePosixPath

import numpy as np

from edgewise.agent.protocol import ProtocolFault
from edgewise.artifacts.records import Agreement
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Variant
from edgewise.errors import ConfigError, VariantFailed
from edgewise.measure.subjects import Event, Subject
from edgewise.proof import isolation
from edgewise.proof.checks import sqnr_db

Arrays = dict[str, np.ndarray]
FILE = "agreement.npz"
IDENTICAL, WITHIN = "identical", "within tolerance"


def store(samples: Samples, count: int, folder: Path, *, needed: bool = False) -> Arrays:
    """Write and return the feeds: `count` samples spread evenly over the test split, so that no class is missed for its place there.
    For 0 nothing is written, and {} returned; `needed`: nothing else is done on this device."""
    if count == 1 or needed and count == 0:
        allowed = "at least 2, since outputs are all that is compared on an emulated device" if needed else "0 (not compared) or at least 2"
        raise ConfigError(f"bench.agreement_samples: {count} must be {allowed}")
    if count == 0:
        return {}
    test = samples.indices("test")
    feeds = samples.feeds(test[np.linspace(0, len(test) - 1, min(count, len(test))).round().astype(int)])
    np.savez(folder / FILE, **feeds)  # type: ignore[arg-type]
    return feeds


def there(subject: Subject, feeds: Arrays) -> Arrays:
    """What the device answers; FILE lies beside its other inputs. {} for no feeds."""
    inputs = PurePosixPath(subject.fields["inputs"]).with_name(FILE)
    return unpacked(subject.outputs(str(inputs), len(next(iter(feeds.values())))).all("outputs")) if feeds else {}


def here(variant: Variant, subject: Subject, feeds: Arrays, models: Path) -> Arrays:
    """What this machine answers, with the subject's settings; {} for no feeds."""
    folder = models / "variants" / variant.name
    return isolation.outputs(variant.module, folder, dict(subject.fields["settings"]), feeds, batch=1) if feeds else {}


def unpacked(events: list[Event]) -> Arrays:
    """Outputs by name, samples first. ProtocolFault where the device did not send arrays."""
    try:
        samples = [{name: array(**packed) for name, packed in event["arrays"].items()} for event in events]
        return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolFault("bad_field", f"outputs: {error}") from error


def array(dtype: str, shape: list[int], base64: str) -> np.ndarray:
    return np.frombuffer(b64decode(base64, validate=True), np.dtype(dtype)).reshape(shape)


def compare(here: Arrays, there: Arrays, variant: Variant) -> Agreement:
    """The worst of all outputs, samples first; the answers are those of the first one. VariantFailed for another name or shape, NaN, or
    too low an SQNR."""
    first, what = next(iter(here)), f"{variant.name} computes something else on the device"
    shapes = {name: array.shape for name, array in here.items()}
    if shapes != {name: array.shape for name, array in there.items()}:
        raise VariantFailed(f"{what}: outputs {_shown(there)}, on this machine {_shown(here)}")
    if not all(np.isfinite(side[name]).all() for side in (here, there) for name in here):
        raise VariantFailed(f"{variant.name} gives NaN or infinite outputs for some of {len(here[first])} test samples")
    found = Agreement(
        samples=len(here[first]),
        verdict=IDENTICAL if all(np.array_equal(here[name], there[name]) for name in here) else WITHIN,
        same_predictions_share=same_predictions_share(here[first], there[first]),
        sqnr_db=min(sqnr_db(here[name], there[name]) for name in here),
        least_sqnr_db=variant.min_device_sqnr_db,
        largest_difference=max(float(np.abs(here[name].astype(np.float64) - there[name]).max()) for name in here),
    )
    if found.sqnr_db < found.least_sqnr_db:
        seen = f"largest difference {found.largest_difference:.3g}, {told(found)}"
        needed = f"{variant.scheme} needs at least {found.least_sqnr_db:g} (min_device_sqnr_db)"
        raise VariantFailed(f"{what}: SQNR {found.sqnr_db:.1f} dB against this machine's outputs, {needed}; {seen}")
    return found


def same_predictions_share(here: np.ndarray, there: np.ndarray) -> float | None:
    if here.ndim < 2 or here.shape[-1] < 2:
        return None
    return float(np.mean(here.argmax(axis=-1) == there.argmax(axis=-1)))


def told(found: Agreement) -> str:
    share = found.same_predictions_share
    return f"{found.samples} samples" if share is None else f"{share:.0%} of {found.samples} answers the same"


def _shown(arrays: Arrays) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
