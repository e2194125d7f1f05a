"""Bad files, settings and inputs of all formats: each ends in one clear line, or in the death of a process that is told of, and never in
wrong answers."""

import re
from pathlib import Path

import numpy as np
import pytest

from edgewise.compress.variants import find_scheme
from edgewise.config import schema
from edgewise.errors import VariantFailed
from edgewise.proof import checks
from tests.support.bad_files import DAMAGES, Outcome, spoil, try_all
from tests.support.formats import FORMATS, form, part, variant

pytestmark = [pytest.mark.framework, pytest.mark.formats]
ONE_LINE = re.compile(r"[^\n]{10,700}")
SCHEMES = {scheme for name in FORMATS for scheme in part(name, "make").SCHEMES}


@pytest.fixture(scope="module")
def spoiled(source, floats, tmp_path_factory):
    """spoiled(name): {(file, damage): its outcome} of a format, in one process as long as it lives."""
    known: dict[str, dict[tuple[str, str], Outcome]] = {}
    inputs, _ = checks.read_probe(source)

    def get(name: str) -> dict[tuple[str, str], Outcome]:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            made = spoil(floats[name], folder)
            jobs = [(str(copy), {"threads": 1}, inputs) for copy in made.values()]
            known[name] = dict(zip(made, try_all(form(name)["module"], jobs, folder / "told"), strict=True))
        return known[name]

    return get


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FORMATS)
def test_a_bad_file_is_refused_in_one_line_or_its_answers_are(name, damage, source, spoiled):
    _, expected = checks.read_probe(source)
    for (file, how), outcome in spoiled(name).items():
        if how != damage:
            continue
        if outcome.how == "answered":
            with pytest.raises(VariantFailed):
                checks.check_outputs(expected, outcome.outputs, 60.0)
        else:
            assert ONE_LINE.fullmatch(outcome.words), (file, outcome)
        if how == "missing":
            told = re.search(rf"{re.escape(file)}|{Path(file).suffix[1:]} file", outcome.words)
            assert outcome.how == "refused" and told, (file, outcome)


BAD_INPUTS = {
    "words": lambda picture: np.full(picture.shape, "x"),
    "another number of channels": lambda picture: np.concatenate([picture, picture], axis=1),
    "an axis less": lambda picture: picture[:, 0],
}


@pytest.mark.parametrize("name", FORMATS)
def test_inputs_of_another_type_or_shape_are_cast_or_refused_in_one_line(name, source, floats, tmp_path):
    inputs, expected = checks.read_probe(source)
    feeds = {"doubles": {"image": inputs["image"].astype(np.float64)}} | {
        k: {"image": make(inputs["image"])} for k, make in BAD_INPUTS.items()
    }
    jobs = [(str(floats[name]), {"threads": 1}, given) for given in feeds.values()]
    found = dict(zip(feeds, try_all(form(name)["module"], jobs, tmp_path / "told"), strict=True))
    doubles = found.pop("doubles")
    assert doubles.how == "answered" and checks.check_outputs(expected, doubles.outputs, 60.0) >= 60.0
    for outcome in found.values():
        assert outcome.how == "refused" and ONE_LINE.fullmatch(outcome.words), found


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"threads": 0}, r"engine\.threads: 0; .*allowed: "),
        ({"threads": "two"}, r"engine\.threads: 'two'; .*allowed: "),
        ({"no_such_setting": 1}, r"engine\.no_such_setting: unknown setting of the engine of \w+; .*allowed: .*threads"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(engine, message, name):
    with pytest.raises(schema.ConfigError, match=message) as caught:
        variant(name, "fp32", engine=engine)
    assert ONE_LINE.fullmatch(str(caught.value))


@pytest.mark.parametrize("name", FORMATS)
def test_a_scheme_that_is_none_is_refused_and_one_that_the_format_lacks_fails_the_variant(name):
    with pytest.raises(schema.ConfigError, match=r"'int9-static': no such file in conf/scheme/; did you mean 'int8-static'"):
        variant(name, "int9-static")
    offered = part(name, "make").SCHEMES
    for lacking in SCHEMES - set(offered):
        with pytest.raises(VariantFailed, match=f"^{name} does not offer {lacking}; it has {', '.join(offered)}$"):
            find_scheme(variant(name, lacking), offered)
