"""payload/preprocess: every kind of picture becomes the same arrays, whatever it was saved as. Oracles: Pillow, numpy."""

import ast
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from edgewise.agent import preprocess

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (13, 17, 3), np.uint8)
GREYS = RNG.integers(0, 256, (13, 17), np.uint8)
WIDE = RNG.integers(0, 65_536, (13, 17), np.uint16)


def spec(**changes):
    return {
        "kind": "image", "size": [24, 32], "channels": 3, "resize": "stretch", "interpolation": "bilinear", "scale": 1 / 255,
        "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.2, 0.1], "layout": "NCHW", "dtype": "float32", **changes,
    }  # fmt: skip


def saved(picture: Image.Image, kind: str, **options) -> io.BytesIO:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    stream.seek(0)
    return stream


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
@pytest.mark.parametrize("array", [COLOURS, GREYS], ids=["rgb", "grey"])
def test_lossless_kinds_come_back_as_they_were(kind, array):
    assert np.array_equal(preprocess.decode_picture(saved(Image.fromarray(array), kind)), array.reshape(13, 17, -1))


@pytest.mark.parametrize(
    ("mode", "kind", "channels"),
    [("P", "PNG", 3), ("P", "GIF", 3), ("RGBA", "PNG", 3), ("RGBA", "WEBP", 3), ("CMYK", "TIFF", 3), ("CMYK", "JPEG", 3),
     ("RGB", "JPEG", 3), ("1", "PNG", 1), ("LA", "PNG", 1), ("L", "JPEG", 1)],
)  # fmt: skip
def test_other_modes_are_what_pillow_shows(mode, kind, channels):
    stream = saved(Image.fromarray(COLOURS).convert(mode), kind)
    expected = np.asarray(Image.open(stream).convert("L" if channels == 1 else "RGB"))
    stream.seek(0)
    decoded = preprocess.decode_picture(stream)
    assert decoded.shape == (13, 17, channels) and decoded.dtype == np.uint8
    assert np.array_equal(decoded, expected.reshape(decoded.shape))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped(kind):
    decoded = preprocess.decode_picture(saved(Image.fromarray(WIDE), kind))
    assert np.array_equal(decoded[:, :, 0], np.rint(WIDE / 257).astype(np.uint8))


def test_16_bits_of_the_other_byte_order():
    picture = Image.frombytes("I;16B", (17, 13), WIDE.astype(">u2").tobytes())
    assert np.array_equal(preprocess.decode_picture(saved(picture, "TIFF"))[:, :, 0], np.rint(WIDE / 257).astype(np.uint8))


def test_16_bits_in_32_as_older_pillows_read_a_png():
    decoded = preprocess.decode_picture(saved(Image.fromarray(WIDE.astype(np.int32)), "TIFF"))
    assert np.array_equal(decoded[:, :, 0], np.rint(WIDE / 257).astype(np.uint8))


UPRIGHT = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90,
}  # fmt: skip


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = preprocess.decode_picture(saved(Image.fromarray(COLOURS), "PNG", exif=exif))
    assert np.array_equal(decoded, UPRIGHT[orientation](COLOURS))


def huge() -> bytes:
    content = saved(Image.new("1", (30_000, 30_000)), "PNG").getvalue()
    assert len(content) < 200_000
    return content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"this is no picture", "not a picture format that Pillow can read"),
        (lambda: b"", "not a picture format that Pillow can read"),
        (lambda: saved(Image.fromarray(COLOURS), "JPEG").getvalue()[:300], r"\w"),
        (lambda: saved(Image.fromarray(COLOURS), "PNG").getvalue()[:200], "truncated"),
        (huge, "pixels"),
        (lambda: saved(Image.fromarray(GREYS.astype(np.float32)), "TIFF").getvalue(), "float pictures have no fixed range"),
        (lambda: saved(Image.fromarray(GREYS.astype(np.int32) - 300), "TIFF").getvalue(), "more than 16 bits"),
    ],
    ids=["text", "empty", "cut jpeg", "cut png", "bomb", "float", "negative"],
)
def test_what_cannot_be_read_says_why(content, reason):
    with pytest.raises(ValueError, match=reason):
        preprocess.decode_picture(io.BytesIO(content()))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"]), st.data())
def test_a_damaged_file_is_a_picture_or_a_value_error(kind, data):
    content = bytearray(saved(Image.fromarray(COLOURS), kind).getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = preprocess.decode_picture(io.BytesIO(bytes(content[: data.draw(st.integers(1, len(content)))])))
    except ValueError as error:
        assert str(error)
    else:
        assert decoded.dtype == np.uint8 and decoded.ndim == 3 and decoded.shape[2] in (1, 3)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 3]), st.sampled_from([1, 3]), st.sampled_from(["crop", "stretch", "pad"])
)
def test_fit_gives_the_asked_shape_for_any_picture(height, width, given_channels, channels, resize):
    image = np.full((height, width, given_channels), 77, np.uint8)
    fitted = preprocess.resize_to_spec(image, spec(channels=channels, resize=resize))
    assert fitted.shape == (24, 32, channels) and fitted.dtype == np.uint8
    assert set(np.unique(fitted)) <= ({0, 77} if resize == "pad" else {77})


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("channels", [1, 3])
def test_fit_is_pillows_resize(interpolation, channels):
    resample = Image.Resampling[interpolation.upper()]
    picture = Image.fromarray(COLOURS).convert("L" if channels == 1 else "RGB")
    made = {
        mode: preprocess.resize_to_spec(COLOURS, spec(resize=mode, interpolation=interpolation, channels=channels))
        for mode in ("stretch", "crop", "pad")
    }
    oracles = {
        "stretch": picture.resize((32, 24), resample),
        "crop": ImageOps.fit(picture, (32, 24), resample),
        "pad": ImageOps.pad(picture, (32, 24), resample),
    }
    for mode, oracle in oracles.items():
        assert np.array_equal(made[mode], np.asarray(oracle).reshape(24, 32, channels)), mode


def test_crop_keeps_the_middle_and_pad_everything():
    image = np.zeros((40, 120, 1), np.uint8)
    image[:, 40:80] = 200
    square = {"size": [20, 20], "channels": 1}
    assert (preprocess.resize_to_spec(image, spec(resize="crop", **square))[:, 3:-3] == 200).all()
    padded = preprocess.resize_to_spec(image, spec(resize="pad", **square))
    assert not padded[:6].any() and not padded[-6:].any() and padded[10, 10] == 200 and padded[10, 1] == 0


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_normalize_is_the_formula(layout):
    batch = RNG.integers(0, 256, (4, 24, 32, 3), np.uint8)
    given = preprocess.normalize(batch, spec(layout=layout))
    expected = (batch / 255 - [0.5, 0.4, 0.3]) / [0.5, 0.2, 0.1]
    expected = expected.transpose(0, 3, 1, 2) if layout == "NCHW" else expected
    assert given.dtype == np.float32 and given.flags.c_contiguous
    np.testing.assert_allclose(given, expected, atol=2e-6)


def test_a_batch_is_normalized_as_its_pictures_are():
    batch = RNG.integers(0, 256, (5, 24, 32, 3), np.uint8)
    alone = np.concatenate([preprocess.normalize(one[None], spec()) for one in batch])
    assert np.array_equal(preprocess.normalize(batch, spec()), alone)


def test_python_3_9_can_read_it():
    ast.parse(Path(preprocess.__file__).read_text(encoding="utf-8"), feature_version=(3, 9))
