"""Photographs come back as they were written, with what else their files hold; broken ones are named."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from models.data import images
from models.data.images import Encoding, ImageError

GENERATOR = np.random.default_rng(0)
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MAKE, ORIENTATION, EXIF, GPS = 0x010F, 0x0112, 0x8769, 0x8825
EXPOSURE_TIME, LATITUDE_REFERENCE = 0x829A, 0x0001


def exif(orientation=None):
    tags = Image.Exif()
    tags[MAKE] = "A maker"
    tags[EXIF] = {EXPOSURE_TIME: TiffImagePlugin.IFDRational(1, 250)}
    tags[GPS] = {LATITUDE_REFERENCE: "N"}
    if orientation:
        tags[ORIENTATION] = orientation
    return tags.tobytes()


def exif_of(data):
    """Read by another reader than ours."""
    tags = Image.Exif()
    tags.load(b"Exif\0\0" + data)
    return tags.get(MAKE), tags.get_ifd(EXIF).get(EXPOSURE_TIME), tags.get_ifd(GPS).get(LATITUDE_REFERENCE)


def random_samples(channels, depth, size=(13, 17)):
    values = GENERATOR.integers(0, 2**depth, (*size, channels))
    return values.astype(np.uint8 if depth == 8 else np.uint16)


def png16(samples):
    """As the PNG specification says, by hand: no library here writes grey with opacity of 16 bits."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = samples.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(("suffix", "depth"), [(".png", 8), (".png", 16), (".tif", 8), (".tiff", 16), (".tif", 32)])
def test_lossless_formats_give_back_everything(tmp_path, suffix, depth, alpha, grey):
    steps = 2 ** min(depth, 16) - 1
    pixels = random_samples(1 if grey else 3, min(depth, 16)).astype(np.float32) / np.float32(steps)
    pixels = np.repeat(pixels, 3, axis=2) if grey else pixels
    opacity = random_samples(1, min(depth, 16))[..., 0].astype(np.float32) / np.float32(steps) if alpha else None
    path = tmp_path / f"picture{suffix}"
    images.write(path, pixels, Encoding(depth, grey, opacity, exif()[6:], ICC))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]

    photograph = images.read(path)
    assert photograph.pixels.dtype == np.float32
    assert photograph.pixels.flags.c_contiguous
    assert np.allclose(photograph.pixels, pixels, rtol=0, atol=1e-6)
    encoding = photograph.encoding
    still_grey = grey and not (suffix == ".png" and depth == 16 and alpha)
    assert (encoding.depth, encoding.grey, encoding.icc) == (depth, still_grey, ICC)
    assert (encoding.alpha is not None) == alpha
    if opacity is not None:
        assert np.allclose(encoding.alpha, opacity, rtol=0, atol=1e-6)
    assert exif_of(encoding.exif) == ("A maker", pytest.approx(1 / 250), "N")

    # And once more, from what was read.
    images.write(tmp_path / f"again{suffix}", photograph.pixels, encoding)
    assert (tmp_path / f"again{suffix}").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("suffix", "grey"), [(".jpg", False), (".jpg", True), (".webp", False)])
def test_lossy_formats_keep_what_they_can(tmp_path, suffix, grey):
    ramp = np.linspace(0, 1, 64, dtype=np.float32)
    pixels = np.stack([np.tile(ramp, (48, 1))] * 3, axis=2)
    path = tmp_path / f"picture{suffix}"
    images.write(path, pixels, Encoding(16, grey, None, exif()[6:], ICC))
    photograph = images.read(path)
    assert np.abs(photograph.pixels - pixels).max() < 0.02
    assert (photograph.encoding.depth, photograph.encoding.grey, photograph.encoding.icc) == (8, grey, ICC)
    assert exif_of(photograph.encoding.exif) == ("A maker", pytest.approx(1 / 250), "N")


@pytest.mark.parametrize("alpha", [False, True])
def test_webp_that_loses_nothing_stays_so(tmp_path, alpha):
    samples = random_samples(4 if alpha else 3, 8)
    for name, lossless in (("a.webp", True), ("b.webp", False)):
        Image.fromarray(samples).save(tmp_path / name, lossless=lossless, exact=True, quality=95)
        photograph = images.read(tmp_path / name)
        assert photograph.encoding.lossless == lossless
        images.write(tmp_path / f"again-{name}", photograph.pixels, photograph.encoding)
        again = images.read(tmp_path / f"again-{name}")
        assert again.encoding.lossless == lossless
        assert np.array_equal(again.pixels, photograph.pixels) == lossless


def test_alpha_is_kept_by_webp_and_left_out_by_jpeg(tmp_path):
    pixels, alpha = np.full((16, 16, 3), 0.5, np.float32), np.zeros((16, 16), np.float32)
    alpha[:8] = 1
    for suffix in (".webp", ".jpg"):
        images.write(tmp_path / f"picture{suffix}", pixels, Encoding(alpha=alpha))
    assert np.allclose(images.read(tmp_path / "picture.webp").encoding.alpha, alpha)
    assert images.read(tmp_path / "picture.jpg").encoding.alpha is None


def test_other_programs_read_16_bit_files_as_we_do(tmp_path):
    samples = random_samples(3, 16)
    for suffix in (".png", ".tif"):
        path = tmp_path / f"picture{suffix}"
        images.write(path, samples / np.float32(65535), Encoding(16))
        assert (cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1] == samples).all()
    assert (tifffile.imread(tmp_path / "picture.tif") == samples).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_of_every_kind(tmp_path, channels):
    samples = random_samples(channels, 16)
    (tmp_path / "picture.png").write_bytes(png16(samples))
    photograph = images.read(tmp_path / "picture.png")
    values = samples / np.float32(65535)
    colours = values[..., :3] if channels >= 3 else values[..., [0, 0, 0]]
    assert np.allclose(photograph.pixels, colours, atol=1e-6)
    assert (photograph.encoding.grey, photograph.encoding.depth) == (channels <= 2, 16)
    if channels in (2, 4):
        assert np.allclose(photograph.encoding.alpha, values[..., -1], atol=1e-6)
    else:
        assert photograph.encoding.alpha is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("suffix", "depth"), [(".png", 8), (".png", 16), (".tif", 16), (".tif", 8), (".jpg", 8)])
def test_pictures_come_upright(tmp_path, suffix, depth, orientation):
    """As Pillow turns them; and the orientation is not carried over, lest they be turned twice."""
    blocks = np.kron(random_samples(3, 8, (2, 3)), np.ones((8, 8, 1), np.uint8))
    path = tmp_path / f"turned{suffix}"
    images.write(path, blocks / np.float32(255), Encoding(depth, exif=exif(orientation)[6:]))
    reference = Image.fromarray(blocks)
    reference.getexif()[ORIENTATION] = orientation
    upright = np.asarray(ImageOps.exif_transpose(reference))
    photograph = images.read(path)
    assert photograph.pixels.shape == upright.shape
    assert np.abs(photograph.pixels - upright / 255).max() < 0.05
    assert images.read_size(path) == upright.shape[:2]
    tags = Image.Exif()
    tags.load(b"Exif\0\0" + photograph.encoding.exif)
    assert tags[ORIENTATION] == 1
    assert tags[MAKE] == "A maker"


@pytest.mark.parametrize("mode", ["1", "P", "PA", "RGBX", "YCbCr"])
def test_rarer_modes_are_read_as_pillow_shows_them(tmp_path, mode):
    picture = Image.fromarray(random_samples(3, 8)).convert("P" if mode == "PA" else mode)
    picture = picture.convert(mode) if mode == "PA" else picture
    path = tmp_path / ("picture.tif" if mode in ("PA", "RGBX") else "picture.jpg" if mode == "YCbCr" else "picture.png")
    picture.save(path)
    with Image.open(path) as again:
        shown = np.asarray(again.convert("RGB"))
    assert np.allclose(images.read(path).pixels, shown / 255, atol=1e-6)
    assert images.read(path).encoding.grey == (mode == "1")


def test_a_transparent_palette_has_alpha(tmp_path):
    picture = Image.fromarray(random_samples(1, 8)[..., 0] % 4, "L").convert("P")
    picture.save(tmp_path / "picture.png", transparency=2)
    alpha = images.read(tmp_path / "picture.png").encoding.alpha
    assert set(np.unique(alpha)) == {0, 1}


@pytest.mark.parametrize("layout", ["planar", "minis-white", "big-endian", "lzw", "float16", "lzw-8"])
def test_tiff_of_other_programs(tmp_path, layout):
    samples = random_samples(3, 16, (20, 30))
    path = tmp_path / "picture.tif"
    expected = samples / 65535
    if layout == "planar":
        tifffile.imwrite(path, np.moveaxis(samples, 2, 0), photometric="rgb", planarconfig="separate")
    elif layout == "minis-white":
        tifffile.imwrite(path, 65535 - samples[..., 0], photometric="miniswhite")
        expected = expected[..., [0, 0, 0]]
    elif layout == "big-endian":
        tifffile.imwrite(path, samples, photometric="rgb", byteorder=">")
    elif layout == "float16":
        tifffile.imwrite(path, expected.astype(np.float16), photometric="rgb")
    elif layout == "lzw":
        cv2.imwrite(str(path), samples[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    else:
        Image.fromarray((samples // 256).astype(np.uint8)).save(path, compression="tiff_lzw")
        expected = (samples // 256) / 255
    assert np.allclose(images.read(path).pixels, expected, atol=1e-3 if layout == "float16" else 1e-6)


def test_float_tiff_keeps_what_is_beyond_white(tmp_path):
    pixels = np.full((4, 5, 3), 2.5, np.float32)
    images.write(tmp_path / "picture.tif", pixels, Encoding(32))
    assert (images.read(tmp_path / "picture.tif").pixels == 2.5).all()
    images.write(tmp_path / "picture.png", pixels, Encoding(32))
    photograph = images.read(tmp_path / "picture.png")
    assert photograph.encoding.depth == 16
    assert (photograph.pixels == 1).all()


def test_values_are_rounded_not_cut(tmp_path):
    pixels = np.full((4, 5, 3), 99.6 / 255, np.float32)
    images.write(tmp_path / "picture.png", pixels)
    assert (cv2.imread(str(tmp_path / "picture.png")) == 100).all()


@pytest.mark.parametrize("keep", [0, 10, 0.4, 0.9])
@pytest.mark.parametrize("kind", ["8.png", "16.png", "8.tif", "16.tif", "32.tif", "8.jpg", "8.webp"])
def test_files_cut_short_are_named(tmp_path, kind, keep):
    path = tmp_path / kind
    depth = int(path.stem)
    images.write(path, random_samples(3, 16, (60, 80)) / np.float32(65535), Encoding(depth))
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(ImageError, match=f"{kind} does not decode"):
        images.read(path)


@pytest.mark.parametrize("kind", ["8.png", "16.png", "16.tif"])
def test_broken_bytes_are_named(tmp_path, kind):
    path = tmp_path / kind
    images.write(path, random_samples(3, 16, (60, 80)) / np.float32(65535), Encoding(int(path.stem)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(ImageError, match=f"{kind} does not decode"):
        images.read(path)


def test_what_is_no_picture_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"absent\.png cannot be read: No such file"):
        images.read(tmp_path / "absent.png")
    with pytest.raises(ImageError, match=r"absent\.png cannot be read: No such file"):
        images.read_size(tmp_path / "absent.png")
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for reading in (images.read, images.read_size):
        with pytest.raises(ImageError, match=r"text\.png does not decode"):
            reading(text)
    Image.new("CMYK", (8, 8)).save(tmp_path / "print.jpg")
    with pytest.raises(ImageError, match=r"print\.jpg must be grey or RGB, got CMYK"):
        images.read(tmp_path / "print.jpg")
    tifffile.imwrite(tmp_path / "nan.tif", np.full((8, 8), np.nan, np.float32), photometric="minisblack")
    with pytest.raises(ImageError, match=r"nan\.tif holds NaN"):
        images.read(tmp_path / "nan.tif")
    tifffile.imwrite(tmp_path / "counts.tif", np.zeros((8, 8), np.int32), photometric="minisblack")
    with pytest.raises(ImageError, match=r"counts\.tif must hold 8 or 16 bits or floating point, got int32"):
        images.read(tmp_path / "counts.tif")


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    pixels = np.zeros((4, 5, 3), np.float32)
    for path, given, encoding, message in [
        ("picture.gif", pixels, Encoding(), "suffix must be one of"),
        ("picture.png", pixels[..., 0], Encoding(), r"pixels must be \(H, W, 3\), got \(4, 5\)"),
        ("picture.png", pixels * np.nan, Encoding(), "must be finite"),
        ("picture.png", pixels, Encoding(alpha=np.zeros((5, 4), np.float32)), r"alpha is \(5, 4\)"),
    ]:
        with pytest.raises(ImageError, match=message):
            images.write(tmp_path / path, given, encoding)
    with pytest.raises(FileNotFoundError):
        images.write(tmp_path / "absent" / "picture.png", pixels)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    images.write(path, np.zeros((4, 5, 3), np.float32))
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.core.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        images.write(path, np.ones((4, 5, 3), np.float32))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("shape", [(9, 11), (9, 11, 2), (9, 11, 3)])
def test_maps_come_back_as_they_were(tmp_path, shape):
    values = GENERATOR.normal(0, 30, shape).astype(np.float32)
    images.write_map(tmp_path / "map.tif", values)
    assert (images.read_map(tmp_path / "map.tif") == values).all()
    assert images.read_size(tmp_path / "map.tif") == (9, 11)


def test_maps_of_other_formats(tmp_path):
    disparity = random_samples(1, 16)[..., 0]
    cv2.imwrite(str(tmp_path / "map.png"), disparity)
    assert (images.read_map(tmp_path / "map.png") == disparity).all()
    cv2.imwrite(str(tmp_path / "map.pfm"), disparity.astype(np.float32))
    assert (images.read_map(tmp_path / "map.pfm") == disparity).all()
    data = io.BytesIO()
    Image.fromarray(random_samples(3, 8)).save(data, "JPEG")
    (tmp_path / "map.jpg").write_bytes(data.getvalue())
    with pytest.raises(ImageError, match=r"map\.jpg must be TIFF, PFM or PNG"):
        images.read_map(tmp_path / "map.jpg")


def test_listing_leaves_out_what_is_hidden_or_of_another_kind(tmp_path):
    for name in ("b.PNG", "a.jpeg", ".a.png.1234.part", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in images.list_images(tmp_path)] == ["a.jpeg", "b.PNG"]
