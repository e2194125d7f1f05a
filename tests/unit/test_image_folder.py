"""data/image_folder: what users' folders look like, and one clear line for each thing that is wrong with them."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewise.config.settings import build
from edgewise.data import file_digests, image_folder
from edgewise.errors import ConfigError, DataError
from edgewise.plugins import Item, Unreadable

RNG = np.random.default_rng(0)


def picture(path: Path, size: tuple[int, int] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("good/a.png", "good/b.jpg", "good/deeper/c.bmp", "scratch/d.png", "scratch/e.TIF"):
        picture(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def read(folder: Path, **given) -> list[Item | Unreadable]:
    return list(image_folder.items(build(image_folder.Settings, {"path": str(folder), **given}, "data")))


def names(found) -> list[str]:
    return [item.name for item in found]


def digest(folder: Path, **given) -> str:
    return image_folder.probe(build(image_folder.Settings, {"path": str(folder), **given}, "data"))["digest"]


def test_a_folder_for_each_class(folder):
    found = read(folder)
    assert [(i.name, i.label) for i in found] == [
        ("good/a.png", "good"),
        ("good/b.jpg", "good"),
        ("good/deeper/c.bmp", "good"),
        ("scratch/d.png", "scratch"),
        ("scratch/e.TIF", "scratch"),
    ]
    assert np.array_equal(found[0].value, np.asarray(Image.open(folder / "good/a.png")))
    assert names(read(folder, recursive=False)) == ["good/a.png", "good/b.jpg", "scratch/d.png", "scratch/e.TIF"]


def test_hidden_and_other_files_are_no_samples(folder):
    before = names(read(folder))
    for name in (".hidden.png", "good/._a.png", ".git/x.png", "good/.cache/y.png"):
        picture(folder / name)
    (folder / "good/notes.txt").write_text("not a picture")
    os.mkfifo(folder / "good/pipe.png")
    assert names(read(folder)) == before


def test_links_are_followed_and_loops_are_not(folder, tmp_path):
    picture(tmp_path / "elsewhere/f.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "good/loop").symlink_to(folder)
    (folder / "good/self").symlink_to(folder / "good")
    (folder / "good/around.png").symlink_to(folder / "good/around.png")
    found = read(folder, max_unreadable_share=1.0)
    assert len(found) == 7 and "linked/f.png" in names(found)
    assert [u.name for u in found if isinstance(u, Unreadable)] == ["good/around.png"]


def test_names_that_are_no_utf8(folder):
    picture(folder / "good/a.png").rename(os.fsdecode(os.fsencode(folder) + b"/good/caf\xe9.png"))
    found = read(folder)
    assert names(found)[1] == "good/caf\\xe9.png"
    digest(folder)


def test_unreadable_pictures_are_named_with_the_reason(folder):
    (folder / "good/text.jpg").write_text("this is text")
    (folder / "good/zero.png").touch()
    (folder / "scratch/cut.png").write_bytes((folder / "scratch/d.png").read_bytes()[:100])
    (folder / "scratch/gone.png").symlink_to("nowhere.png")
    reasons = {u.name: u.reason for u in read(folder, max_unreadable_share=0.5) if isinstance(u, Unreadable)}
    assert reasons["good/text.jpg"] == reasons["good/zero.png"] == "not a picture format that Pillow can read"
    assert "truncated" in reasons["scratch/cut.png"] and reasons["scratch/gone.png"] == "No such file or directory"
    with pytest.raises(
        DataError, match=r"4 of 9 pictures cannot be read \(good/text.jpg: not a picture.* raise data.max_unreadable_share above 0.05"
    ):
        read(folder)


def as_nobody(action):
    """Tests often run as root, who may read everything."""
    if os.geteuid() != 0:
        return action()
    os.seteuid(65_534)
    try:
        return action()
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["", "good", "good/deeper"])
def test_a_folder_that_may_not_be_read(folder, name):
    for parent in (folder, *list(folder.parents)[:2]):
        parent.chmod(0o755)
    (folder / name).chmod(0)
    try:
        with pytest.raises(DataError, match="Permission denied"):
            as_nobody(lambda: read(folder))
    finally:
        (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "absent", "No such file or directory; it must hold a folder of pictures for each class"),
        (lambda folder: folder / "good/a.png", "Not a directory"),
        (
            lambda folder: (folder / "empty/class").mkdir(parents=True) or folder / "empty",
            "empty: no pictures in it; it must hold a folder of pictures for each class, or pictures alone if they have no labels",
        ),
    ],
    ids=["absent", "file", "empty"],
)
def test_wrong_folders(folder, make, message):
    place = make(folder)
    for action in (read, digest):
        with pytest.raises(DataError, match=message):
            action(place)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image_size": 7}, "data.image_size: 7 must be an integer or \\[height, width\\], at least 8"),
        ({"image_size": [64]}, r"data.image_size: \[64\] must be"),
        ({"image_size": "big"}, "data.image_size: 'big' must be"),
        ({"image_size": True}, "data.image_size: True must be"),
        ({"channels": 4}, "data.channels: 4; allowed: 1, 3"),
        ({"resize": "squeeze"}, "data.resize: 'squeeze'; allowed: as_is, crop, letterbox, pad, stretch"),
        ({"mean": [0.5, 0.5]}, r"data.mean: \[0.5, 0.5\] must be 1 number, or 3"),
        ({"std": [0.0]}, r"data.std: \[0.0\] must be above 0"),
        ({"path": "???"}, "data.path: missing; give it as data.path=VALUE"),
    ],
)
def test_wrong_settings(folder, given, message):
    with pytest.raises(ConfigError, match=message):
        read(folder, **given)


def test_the_probe_notices_every_change(folder):
    seen = [digest(folder)]
    assert digest(folder) == seen[0]
    changes = (
        lambda: picture(folder / "good/new.png"),
        lambda: (folder / "good/new.png").unlink(),
        lambda: (folder / "good/a.png").rename(folder / "scratch/a.png"),
        lambda: picture(folder / "scratch/a.png", (20, 20)),
    )
    for change in changes:
        change()
        assert digest(folder) not in seen[-1:]
        seen.append(digest(folder))


def test_a_copy_of_the_pictures_has_the_same_digest(folder, tmp_path):
    """Wherever it lies and whenever it was made: a colleague's clone runs nothing again."""
    copy = tmp_path / "clone/pictures"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    os.utime(copy / "good/a.png", ns=(1, 1))
    assert digest(copy) == digest(folder)
    os.utime(folder / "good/a.png", ns=(1, 1))
    assert digest(copy) == digest(folder)


def test_a_picture_is_read_once(folder, monkeypatch):
    before = digest(folder)
    read: list[Path] = []
    digest_of = file_digests.sha256
    monkeypatch.setattr(file_digests, "sha256", lambda path: read.append(path) or digest_of(path))
    assert digest(folder) == before and not read
    picture(folder / "good/a.png", (20, 20))
    assert digest(folder) != before and read == [folder / "good/a.png"]
    (store,) = file_digests.STORE.iterdir()
    for damaged in (b"", b"[1]", b'{"good/a.png": 3}'):
        store.write_bytes(damaged)
        read.clear()
        digest(folder)
        assert len(read) == 5, "all are read again"


FILES = ("good/a.png", "good/b.jpg", "good/deeper/c.bmp", "scratch/d.png", "scratch/e.TIF")


def csv(folder: Path, text: str, encoding: str = "utf-8") -> str:
    path = folder.parent / "groups.csv"
    path.write_text(text, encoding=encoding)
    return str(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_groups_come_from_the_csv(folder, encoding):
    text = "file,class,exposure,group\n" + "".join(f"{name},x,1,{i // 2}\n" for i, name in enumerate(FILES)) + "absent.png,x,1,9\n"
    groups = csv(folder, text, encoding)
    assert [i.group for i in read(folder, groups=groups)] == ["0", "0", "1", "1", "2"]
    before = digest(folder, groups=groups)
    csv(folder, text.replace("e.TIF,x,1,2", "e.TIF,x,1,1"), encoding)
    assert digest(folder, groups=groups) != before != digest(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,group\na,1\n", "has no column file in its first line, 'name,group'"),
        ("file;group\na;1\n", "has no column file and group in its first line, 'file;group'"),
        ("", "has no column file and group in its first line, ''"),
        ("file,group\n", "has no group for 5 of 5 pictures, such as good/a.png; add them"),
        (
            "file,group\npictures/good/a.png,1\n",
            "has no group for 5 of 5 pictures, such as good/a.png; the file lists pictures/good/a.png, ...",
        ),
        ("file,group\ngood/a.png,\n", "line 2: file or group is empty"),
        ("file,group\ngood/a.png\n", "line 2: file or group is empty"),
        ("file,group\ngood/a.png,1\ngood/a.png,2\n", "line 3: good/a.png is in group 1 and in group 2; keep one"),
    ],
)
def test_wrong_groups(folder, text, message):
    with pytest.raises(DataError, match=message):
        read(folder, groups=csv(folder, text))


def test_groups_that_cannot_be_read(folder):
    for place in (folder / "absent.csv", folder):
        with pytest.raises(DataError, match=r"data.groups: .*give a CSV file with the columns file,group"):
            read(folder, groups=str(place))
    with pytest.raises(DataError, match="has no column"):
        read(folder, groups=str(folder / "good/a.png"))


def test_pictures_of_a_kind_that_cannot_be_opened_here_are_counted_and_named(tmp_path):
    for label in "ab":
        for number in range(12):
            picture(tmp_path / "pictures" / label / f"{number}.png")
    (tmp_path / "pictures/a/phone.HEIC").write_bytes(b"no Pillow knows this")
    settings = image_folder.Settings(path=str(tmp_path / "pictures"), max_unreadable_share=0.1)
    bad = [item for item in image_folder.items(settings) if isinstance(item, Unreadable)]
    assert [(item.name, "convert them to JPEG or PNG" in item.reason) for item in bad] == [("a/phone.HEIC", True)]
    with pytest.raises(DataError, match=r"1 of 25 pictures cannot be read \(a/phone\.HEIC: Pillow cannot open \.heic files here"):
        list(image_folder.items(replace(settings, max_unreadable_share=0.01)))
