"""What is encoded here looks right to Pillow, and what Pillow writes is decoded right."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from framegate import _http


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    assert one.shape == other.shape
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def scene(width: int, height: int) -> np.ndarray:
    """A colourful picture without noise, of shape (height, width, 3), red first."""
    y, x = np.mgrid[:height, :width]
    red = 127 + 120 * np.sin(x / 23)
    green = 127 + 120 * np.cos(y / 31)
    blue = 255 * x / width
    picture = np.stack([red, green, blue], axis=-1)
    picture[height // 4 : height // 2, width // 4 : width // 2] = (250, 40, 30)
    return picture.astype(np.uint8)


def make(picture: np.ndarray, format: str, coding: str, query: str = "") -> Image.Image:
    height, width = picture.shape[:2]
    made = _http._make_picture(picture.tobytes(), format, (width, height), coding, query)
    image = Image.open(io.BytesIO(made))
    assert image.format == coding.upper()
    image.load()
    return image


def coded(picture: np.ndarray, coding: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, coding, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("coding", "query", "bound"),
    [
        ("jpeg", "quality=95", 38),
        ("jpeg", "", 30),
        ("jpeg", "quality=20", 24),
        ("webp", "", 30),
        ("png", "", float("inf")),
    ],
)
@pytest.mark.parametrize(("width", "height"), [(640, 480), (37, 23), (1, 1), (16, 1)])
def test_colours_look_the_same_to_pillow(
    coding: str, query: str, bound: float, width: int, height: int
) -> None:
    picture = scene(width, height)
    if (width, height) != (640, 480):
        picture[:] = picture[0, 0]  # a few pixels: halved colours would say nothing
    for name, swapped in [("rgb8", picture), ("bgr8", picture[..., ::-1])]:
        image = make(swapped, name, coding, query)
        assert image.size == (width, height)
        assert psnr(np.asarray(image.convert("RGB")), picture) >= bound, name


def test_better_quality_is_larger_and_nearer() -> None:
    picture = scene(640, 480)
    sizes, ratios = [], []
    for quality in (10, 50, 80, 95):
        query = f"quality={quality}"
        data = _http._make_picture(picture.tobytes(), "rgb8", (640, 480), "jpeg", query)
        sizes.append(len(data))
        ratios.append(psnr(np.asarray(Image.open(io.BytesIO(data))), picture))
    assert sizes == sorted(sizes) and len(set(sizes)) == 4
    assert ratios == sorted(ratios)


def test_grey_stays_grey() -> None:
    grey = scene(64, 48)[..., 0]
    for coding in ("jpeg", "png"):
        image = make(grey, "mono8", coding, "quality=95")
        assert image.mode == "L"
        assert psnr(np.asarray(image), grey) >= 38
    image = make(grey, "mono8", "webp", "quality=95")
    assert psnr(np.asarray(image.convert("L")), grey) >= 35


def test_alpha_survives_where_the_coding_has_it() -> None:
    picture = np.dstack([scene(64, 48), np.full((48, 64), 200, np.uint8)])
    picture[:, 32:, 3] = 0
    for name, order in [("rgba8", [0, 1, 2, 3]), ("bgra8", [2, 1, 0, 3])]:
        swapped = np.ascontiguousarray(picture[..., order])
        assert (np.asarray(make(swapped, name, "png")) == picture).all()
        assert (np.asarray(make(swapped, name, "webp"))[..., 3] == picture[..., 3]).all()
        assert make(swapped, name, "jpeg").mode == "RGB"


def test_sixteen_bits_stay_sixteen_bits_in_a_png() -> None:
    depth = np.arange(64 * 48, dtype="<u2").reshape(48, 64) * 20
    for name in ("mono16", "16UC1"):
        image = make(depth, name, "png")
        assert (np.asarray(image).astype(np.uint16) == depth).all()
    shown = np.asarray(make(depth, "16UC1", "jpeg", "quality=95"))
    assert shown.min() <= 3 and shown.max() >= 252


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("<f2", "16FC1"), ("<f4", "32FC1"), ("<f8", "64FC1"), ("<i2", "16SC1"), ("<i4", "32SC1")],
)
def test_numbers_are_shown_from_black_to_white(dtype: str, name: str) -> None:
    values = np.linspace(-100, 300, 64 * 48).reshape(48, 64).astype(dtype)
    shown = np.asarray(make(values, name, "png")).astype(float)
    spread = values.astype(float)
    wanted = (spread - spread.min()) / (spread.max() - spread.min()) * 255
    assert np.abs(shown - wanted).max() <= 0.51


def test_yuv_is_that_of_pillow_within_rounding() -> None:
    # Pillow's YCbCr is of full range, that of cameras has 16 to 235 for luma, 16 to 240 for colour.
    picture = np.repeat(scene(64, 48)[:, ::2], 2, axis=1)
    full = np.asarray(Image.fromarray(picture).convert("YCbCr")).astype(float)
    luma = np.round(full[..., 0] * 219 / 255 + 16).astype(np.uint8)
    colour = np.round((full[..., 1:] - 128) * 224 / 255 + 128).astype(np.uint8)
    yuyv = np.stack([luma, luma], axis=-1)
    yuyv[:, ::2, 1], yuyv[:, 1::2, 1] = colour[:, ::2, 0], colour[:, ::2, 1]
    for name, packed in [("yuyv", yuyv), ("uyvy", yuyv[..., ::-1])]:
        shown = np.asarray(make(np.ascontiguousarray(packed), name, "png"))
        assert psnr(shown, picture) >= 40, name


def test_bayer_pattern_has_the_colours_of_the_picture() -> None:
    picture = np.repeat(np.repeat(scene(32, 24), 2, axis=0), 2, axis=1)
    for name, pattern in [
        ("bayer_rggb8", (0, 1, 1, 2)),
        ("bayer_bggr8", (2, 1, 1, 0)),
        ("bayer_gbrg8", (1, 2, 0, 1)),
        ("bayer_grbg8", (1, 0, 2, 1)),
    ]:
        mosaic = np.empty((48, 64), np.uint8)
        for place, channel in enumerate(pattern):
            down, right = divmod(place, 2)
            mosaic[down::2, right::2] = picture[down::2, right::2, channel]
        assert (np.asarray(make(mosaic, name, "png")) == picture).all(), name


@pytest.mark.parametrize("query", ["width=320", "height=111", "width=200&height=200", "width=639"])
def test_smaller_pictures_are_those_of_pillow(query: str) -> None:
    picture = scene(640, 480)
    image = make(picture, "rgb8", "png", query)
    wanted = Image.fromarray(picture).resize(image.size, Image.Resampling.BOX)
    assert image.width / image.height == pytest.approx(4 / 3, abs=0.01)
    assert image.size < (640, 480)
    # Pillow's box takes whole pixels at its edges, ours the part that it covers.
    assert psnr(np.asarray(image), np.asarray(wanted)) >= (45 if query == "width=320" else 28)
    if query == "width=320":
        assert np.abs(np.asarray(image).astype(int) - np.asarray(wanted)).max() <= 1


def test_jpegs_of_others_are_decoded() -> None:
    picture = scene(333, 222)
    for options in [
        {"quality": 90},
        {"quality": 90, "progressive": True},
        {"quality": 90, "subsampling": 0},
        {"quality": 90, "subsampling": 1},
        {"quality": 90, "restart_marker_rows": 1},
        {"quality": 90, "optimize": True},
    ]:
        data = coded(picture, "JPEG", **options)
        name, size, pixels = _http._decode_picture(data, "jpeg")
        assert (name, size) == ("rgb8", (333, 222))
        ours = np.frombuffer(pixels, np.uint8).reshape(222, 333, 3)
        theirs = np.asarray(Image.open(io.BytesIO(data)))
        assert psnr(ours, theirs) >= 45, options
    name, _, pixels = _http._decode_picture(coded(picture[..., 0], "JPEG"), "jpeg")
    assert name == "mono8" and len(pixels) == 333 * 222


def test_pngs_of_others_are_decoded_to_the_bit() -> None:
    picture = scene(333, 222)
    alpha = np.dstack([picture, picture[..., 2]])
    deep = (np.arange(333 * 222, dtype="<u2") * 3).reshape(222, 333)
    for array, wanted, options in [
        (picture, "rgb8", {}),
        (alpha, "rgba8", {}),
        (picture[..., 0], "mono8", {}),
        (deep, "mono16", {}),
    ]:
        data = coded(np.ascontiguousarray(array), "PNG", **options)
        name, size, pixels = _http._decode_picture(data, "png")
        assert (name, size) == (wanted, (333, 222))
        assert pixels == array.tobytes(), wanted
    out = io.BytesIO()
    palette = Image.fromarray(picture).quantize(16)
    palette.save(out, "PNG")
    name, _, pixels = _http._decode_picture(out.getvalue(), "png")
    assert name == "rgb8" and pixels == palette.convert("RGB").tobytes()
    out = io.BytesIO()
    grey = Image.merge("LA", [Image.fromarray(alpha[..., channel]) for channel in (0, 3)])
    grey.save(out, "PNG")
    name, _, pixels = _http._decode_picture(out.getvalue(), "png")
    assert name == "rgba8" and pixels == grey.convert("RGBA").tobytes()


def test_picture_over_the_limit_is_refused_before_it_is_decoded() -> None:
    small = scene(64, 48)
    for coding in ("jpeg", "png"):
        data = coded(small, coding.upper())
        assert _http._decode_picture(data, coding, 64 * 48)[1] == (64, 48)
        with pytest.raises(ValueError, match=r"64 x 48 = 3072 pixels, the limit .* is 3071"):
            _http._decode_picture(data, coding, 64 * 48 - 1)
    # A few bytes that announce 4 gigapixels: refused by their head, which is all that there is.
    huge = bytearray(coded(small, "JPEG"))
    frame = huge.index(b"\xff\xc0")
    huge[frame + 5 : frame + 9] = (65500).to_bytes(2) * 2
    with pytest.raises(ValueError, match="65500 x 65500"):
        _http._decode_picture(bytes(huge), "jpeg")
    with pytest.raises(ValueError, match="the limit"):
        _http._make_picture(small.tobytes(), "rgb8", (64, 48), "jpeg", "", 64 * 48 - 1)
    _http._make_picture(small.tobytes(), "rgb8", (64, 48), "jpeg", "", 64 * 48)


@pytest.mark.parametrize("coding", ["jpeg", "png"])
def test_broken_picture_is_an_error(coding: str) -> None:
    data = coded(scene(64, 48), coding.upper())
    for broken in [b"", b"x", data[:20], data[: len(data) // 2], b"\0" * 1000]:
        with pytest.raises(ValueError, match=f"the {coding} cannot be decoded"):
            _http._decode_picture(broken, coding)


def test_jpeg_with_many_scans_is_refused() -> None:
    data = coded(scene(64, 48), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    last = data[start : data.rindex(b"\xff\xd9")]
    scans = data.count(b"\xff\xda")
    for count, refused in [(32 - scans, False), (33 - scans, True)]:
        many = data[:start] + last * (1 + count) + b"\xff\xd9"
        try:
            _http._decode_picture(many, "jpeg")
            error = ""
        except ValueError as raised:
            error = str(raised)
        assert ("more than 32 scans" in error) == refused, error


def test_colours_of_ink_are_refused() -> None:
    out = io.BytesIO()
    Image.fromarray(scene(64, 48)).convert("CMYK").save(out, "JPEG")
    with pytest.raises(ValueError, match="CMYK"):
        _http._decode_picture(out.getvalue(), "jpeg")


def test_coded_frame_is_made_smaller() -> None:
    picture = scene(640, 480)
    data = coded(picture, "JPEG", quality=95)
    made = _http._make_picture(data, "jpeg", (0, 0), "jpeg", "width=160&quality=95")
    image = Image.open(io.BytesIO(made))
    wanted = Image.fromarray(picture).resize((160, 120), Image.Resampling.BOX)
    assert psnr(np.asarray(image), np.asarray(wanted)) >= 30
    # As it is, whatever quality is asked for: it cannot become better.
    assert _http._make_picture(data, "jpeg", (0, 0), "jpeg", "quality=10") == data


def test_frame_of_another_length_is_no_picture() -> None:
    with pytest.raises(ValueError, match="8 x 8 pixels of rgb8 have 192 bytes, the frame has 191"):
        _http._make_picture(bytes(191), "rgb8", (8, 8), "jpeg", "")
    with pytest.raises(ValueError, match="sides are 1 to 65500"):
        _http._make_picture(b"", "rgb8", (0, 8), "jpeg", "")


def test_picture_too_wide_for_webp_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="sides have 16383 at most"):
        _http._make_picture(bytes(16384), "mono8", (16384, 1), "webp", "")
    _http._make_picture(bytes(16383), "mono8", (16383, 1), "webp", "")


TIME = """
import time
from framegate import _http
pixels = bytes(range(256)) * (1280 * 720 * 3 // 256)
times = []
for _ in range(7):
    start = time.thread_time()
    _http._make_picture(pixels, "rgb8", (1280, 720), "jpeg", "")
    times.append(time.thread_time() - start)
print(min(times))
"""


def test_jpegs_are_encoded_with_vector_instructions() -> None:
    """JSIMD_FORCENONE switches the vector code off: five times slower, unless there is none."""

    def seconds(**environment: str) -> float:
        done = subprocess.run(
            [sys.executable, "-c", TIME],
            env={**os.environ, **environment},
            check=True,
            capture_output=True,
            text=True,
        )
        return float(done.stdout)

    assert seconds(JSIMD_FORCENONE="1") > 2 * seconds()
