"""Importing the user's own torch model: exported programs, callables with a checkpoint, and every file that is refused."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgewise.artifacts import artifact
from edgewise.config.schema import Train
from edgewise.errors import ModelError
from edgewise.inspect import model_file
from edgewise.sources import torch_file
from edgewise.sources.oracle import fit_ports
from edgewise.sources.torch_file import load
from stages import train_export
from tests.conftest import ROOT
from tests.support.training_project import make_data, make_project

pytestmark = pytest.mark.framework

BATCH = {0: torch.export.Dim("batch", min=1, max=64)}


def net(channels: int = 3, classes: int = 10, side: int = 16) -> torch.nn.Module:
    torch.manual_seed(1)
    body = torch.nn.Sequential(torch.nn.Conv2d(channels, 4, 3, 2), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten())
    return torch.nn.Sequential(body, torch.nn.Linear(4 * ((side - 1) // 2) ** 2, classes)).eval()


def save(module: torch.nn.Module, path: Path, shape: tuple[int, ...] = (2, 3, 16, 16), dynamic: bool = True) -> Path:
    program = torch.export.export(module.eval(), (torch.zeros(shape),), dynamic_shapes=(BATCH,) if dynamic else None)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> artifact.Manifest:
    return artifact.read(make_data(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(net(), tmp_path_factory.mktemp("user") / "model.pt2")


def import_it(here: Path, settings: dict) -> tuple[artifact.Manifest, np.ndarray, np.ndarray]:
    """Run train-export; the manifest, and for the probe samples the outputs stored and those of the stored program."""
    make_project(here, Train("test", epochs=5, shift_pixels=2), settings, "torch_file")
    train_export.main()
    with np.load(here / "models/source/probe.npz") as probe:
        image, stored = probe["in:image"], probe["out:logits"]
    with torch.no_grad():
        given = torch.export.load(here / "models/source/program.pt2").module()(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(net()(torch.from_numpy(image)).numpy(), stored, rtol=1e-4, atol=1e-5)
    return artifact.read(here / "models/source"), stored, given


def test_a_program_becomes_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Path) -> None:
    monkeypatch.chdir(tmp_path)
    manifest, stored, given = import_it(tmp_path, {"path": str(program)})
    np.testing.assert_allclose(given, stored, rtol=1e-4, atol=1e-5)
    assert manifest.details["layers"] == {
        "0.0": {"type": "Conv2d", "weight": "model.0.0.weight", "shape": [4, 3, 3, 3]},
        "1": {"type": "Linear", "weight": "model.1.weight", "shape": [10, 196]},
    }
    assert manifest.details["imported_sha256"] == artifact.sha256(program)


@pytest.mark.parametrize("kind", ["safetensors", "torch.save"])
def test_a_callable_with_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "weights.bin"
    save_file(net().state_dict(), weights) if kind == "safetensors" else torch.save(net().state_dict(), weights)
    manifest, _, _ = import_it(tmp_path, {"path": str(weights), "callable": f"{__name__}.net"})
    assert set(manifest.details["layers"]) == {"0.0", "1"}


def refused(path: Path, data: artifact.Manifest) -> str:
    feeds = {"image": np.zeros((4, 3, 16, 16), np.float32)}
    with pytest.raises(ModelError) as caught:
        fit_ports(path, torch_file.Settings(path=str(path)), torch_file.open_session(path), data, feeds)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_program(tmp_path: Path, data: artifact.Manifest) -> None:
    torch.save(net().state_dict(), tmp_path / "weights.pt")
    torch.jit.save(torch.jit.trace(net(), torch.zeros(1, 3, 16, 16)), tmp_path / "script.pt")
    (tmp_path / "text.pt2").write_text("not an archive")
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("readme.txt", "a zip file of something else")
    assert "holds weights without a model" in refused(tmp_path / "weights.pt", data)
    assert "is a TorchScript archive" in refused(tmp_path / "script.pt", data)
    assert "is not a torch.export program" in refused(tmp_path / "text.pt2", data)
    assert "cannot be loaded" in refused(tmp_path / "other.pt2", data)
    assert "does not exist" in refused(tmp_path / "absent.pt2", data)
    assert "is a folder" in refused(tmp_path, data)


@pytest.mark.parametrize("name", ["mine.pt", "mine.pt2", "mine.torchscript", "mine"])
def test_torchscript_is_named_whatever_its_name_with_what_to_do(tmp_path: Path, name: str) -> None:
    torch.jit.save(torch.jit.script(net()), tmp_path / name)
    with pytest.raises(ModelError, match=r"is a TorchScript archive.* torch\.export\.save\(.*, or save its weights with .*model\.callable"):
        model_file.find_importer(tmp_path / name, ROOT / "conf").inspect(tmp_path / name)


def test_a_program_is_recognized_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.bin2").write_bytes(save(net(), tmp_path / "mine.pt2").read_bytes())
    assert model_file.find_importer(tmp_path / "mine.bin2", ROOT / "conf") is torch_file


def test_a_truncated_program(tmp_path: Path, program: Path, data: artifact.Manifest) -> None:
    (tmp_path / "half.pt2").write_bytes(program.read_bytes()[:20_000])
    assert "is not a torch.export program" in refused(tmp_path / "half.pt2", data)


@pytest.mark.parametrize(
    ("module", "shape", "dynamic", "says"),
    [
        (net(side=24), (2, 3, 24, 24), True, "expects [3, 24, 24] for input, the data has [3, 16, 16] (without the batch)"),
        (net(channels=1), (2, 1, 16, 16), True, "expects [1, 16, 16] for input, the data has [3, 16, 16]"),
    ],
    ids=["other size", "other channels"],
)
def test_a_program_for_other_inputs(tmp_path: Path, data: artifact.Manifest, module, shape: tuple, dynamic: bool, says: str) -> None:
    assert says in refused(save(module, tmp_path / "model.pt2", shape, dynamic), data)


def test_a_program_for_other_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"the model returns output \[7\], the data has 10 labels"):
        import_it(tmp_path, {"path": str(save(net(classes=7), tmp_path / "model.pt2"))})


class Bomb:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.marker),))


def with_pickle(program: Path, path: Path, content: object, where: str) -> Path:
    """A copy of the program in which one member is a pickle of `content`: its example inputs, or a weight."""
    stream = io.BytesIO()
    torch.save(content, stream)
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            member = old.read(name)
            if name.endswith(where):
                member = stream.getvalue()
            if name.endswith("weights_config.json") and "weight_" in where:
                member = member.replace(b'"use_pickle": false', b'"use_pickle": true')
            new.writestr(name, member)
    return path


@pytest.mark.parametrize("where", ["sample_inputs/model.pt", "weights/weight_0"])
def test_a_program_with_code_in_a_pickle_is_refused_and_never_run(
    tmp_path: Path, program: Path, data: artifact.Manifest, where: str
) -> None:
    spoiled = with_pickle(program, tmp_path / "bomb.pt2", Bomb(tmp_path / "marker"), where)
    assert "can run code on loading" in refused(spoiled, data)
    assert not (tmp_path / "marker").exists()


def rewritten(program: Path, path: Path, changes: dict[str, tuple[str, bytes]], more: dict[str, bytes] | None = None) -> Path:
    """A copy of the program with some members under another name with other content, and more members. Names are without the root."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for full in old.namelist():
            name = full.partition("/")[2]
            renamed, content = changes.get(name, (name, old.read(full)))
            new.writestr(f"{root}/{renamed}", content)
        for name, content in (more or {}).items():
            new.writestr(name.replace("ROOT", root), content)
    return path


def bomb(tmp_path: Path) -> bytes:
    stream = io.BytesIO()
    torch.save(Bomb(tmp_path / "marker"), stream)
    return stream.getvalue()


SAMPLES, CONSTANTS = "data/sample_inputs/model.pt", "data/constants/model_constants_config.json"


def test_a_pickle_whose_name_differs_in_case_is_refused_and_never_run(tmp_path: Path, program: Path, data: artifact.Manifest) -> None:
    """torch's reader of archives takes model.PT where it looks for model.pt."""
    spoiled = rewritten(program, tmp_path / "case.pt2", {SAMPLES: ("data/sample_inputs/model.PT", bomb(tmp_path))})
    assert "'data/sample_inputs/model.PT', which torch.export.save does not write" in refused(spoiled, data)
    assert not (tmp_path / "marker").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # what zipfile says of the file that this test writes
@pytest.mark.parametrize(
    "name", ["ROOT/data/sample_inputs/MODEL.pt", "ROOT/data/sample_inputs/model.pt", "ROOT/extra/a", "ROOT/data/weights/weight_00"]
)
def test_members_that_one_name_may_mean_are_refused_and_never_run(
    tmp_path: Path, program: Path, data: artifact.Manifest, name: str
) -> None:
    spoiled = rewritten(
        program, tmp_path / "twice.pt2", {}, {name: bomb(tmp_path), "ROOT/extra/A": b"", "ROOT/data/weights/WEIGHT_00": b""}
    )
    refused(spoiled, data)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("prefix", ["opaque_obj_0", "custom_obj_0", "OPAQUE_OBJ_0", "../sample_inputs/model.pt"])
@pytest.mark.parametrize("use_pickle", [True, False])
def test_a_constant_that_is_no_tensor_is_refused_and_never_run(
    tmp_path: Path, program: Path, data: artifact.Manifest, prefix: str, use_pickle: bool
) -> None:
    """torch unpickles a constant by the name of its file, whatever its entry says of pickles."""
    import pickle

    meta = {"dtype": 7, "sizes": [], "requires_grad": False, "device": {"type": "cpu", "index": None}, "strides": []}
    meta |= {"storage_offset": {"as_int": 0}, "layout": 7}
    entry = {"path_name": prefix, "is_param": False, "use_pickle": use_pickle, "tensor_meta": meta}
    config = json.dumps({"config": {"c": entry}}).encode()
    content = pickle.dumps(Bomb(tmp_path / "marker"))
    member = {} if prefix.startswith("..") else {f"ROOT/data/constants/{prefix}": content}
    spoiled = rewritten(program, tmp_path / "constant.pt2", {CONSTANTS: (CONSTANTS, config)}, member)
    refused(spoiled, data)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["ROOT/data/aotinductor/model/a.so", "version", "other/models/model.json", "ROOT/models/second.json"])
def test_other_members_are_refused(tmp_path: Path, program: Path, data: artifact.Manifest, name: str) -> None:
    assert "model.path: " in refused(rewritten(program, tmp_path / "more.pt2", {}, {name: b"x"}), data)


def spoiled_program(program: Path, path: Path, change) -> Path:
    with zipfile.ZipFile(program) as archive:
        name = next(name for name in archive.namelist() if name.endswith("models/model.json"))
        content = json.loads(archive.read(name))
    return rewritten(program, path, {"models/model.json": ("models/model.json", json.dumps(change(content)).encode())})


def with_expression(value, expression: str):
    """The JSON value with every expression of a size replaced."""
    if isinstance(value, dict):
        return {key: expression if key == "expr_str" else with_expression(inner, expression) for key, inner in value.items()}
    return [with_expression(inner, expression) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "form",
    [
        "__import__('os').mkdir('{}')",
        "(lambda: __import__('os').mkdir('{}'))()",
        "open('{}', 'w')",
        "exit()",
        "s0.x",
        "Symbol('s0').x()",
        "Eq(s0, 'a()')",
    ],
)
def test_code_in_the_expression_of_a_size_is_refused_and_never_run(
    tmp_path: Path, program: Path, data: artifact.Manifest, form: str
) -> None:
    """sympy evaluates the expressions of a program as Python."""
    expression = form.format(tmp_path / "marker")
    spoiled = spoiled_program(program, tmp_path / "size.pt2", lambda content: with_expression(content, expression))
    assert "is not arithmetic" in refused(spoiled, data)
    assert not (tmp_path / "marker").exists()


def test_a_spec_that_imports_a_module_is_refused_and_never_run(
    tmp_path: Path, program: Path, data: artifact.Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lying_about.py").write_text(f"import os; os.mkdir({str(tmp_path / 'marker')!r})")
    monkeypatch.syspath_prepend(tmp_path)
    context = {"default_factory_module": "lying_about", "default_factory_name": "x", "dict_context": []}
    spec = json.dumps([1, {"type": "collections.defaultdict", "context": json.dumps(context), "children_spec": []}])

    def change(content: dict) -> dict:
        for call in content["graph_module"]["module_call_graph"]:
            if call["signature"]:
                call["signature"]["in_spec"] = spec.replace("default", "\\u0064efault")
        return content

    refused(spoiled_program(program, tmp_path / "spec.pt2", change), data)
    assert not (tmp_path / "marker").exists()


def test_damaged_listings_are_refused_in_one_line(tmp_path: Path, program: Path, data: artifact.Manifest) -> None:
    for number, content in enumerate((b"{", b"[]", b'{"config": 1}', b'{"config": {"c": 1}}')):
        spoiled = rewritten(program, tmp_path / f"{number}.pt2", {CONSTANTS: (CONSTANTS, content)})
        assert "cannot be loaded" in refused(spoiled, data)


def test_a_program_with_arithmetic_on_its_sizes_and_files_beside_it_is_taken(tmp_path: Path) -> None:
    class Halves(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([image, image[: (image.shape[0] + 1) // 2]]).reshape(-1, 1)

    exported = torch.export.export(Halves(), (torch.zeros(7, 3),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(exported, tmp_path / "halves.pt2", extra_files={"notes.txt": "mine"})
    given = torch.arange(15.0).reshape(5, 3)
    assert torch.equal(load(tmp_path / "halves.pt2").module()(given), Halves()(given))


def test_a_pickle_of_tensors_is_no_harm(tmp_path: Path, program: Path) -> None:
    load(program)
    load(with_pickle(program, tmp_path / "fine.pt2", ((torch.zeros(2, 3, 16, 16),), {}), "sample_inputs/model.pt"))
