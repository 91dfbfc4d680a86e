"""Odd files: metadata never costs a picture, and what is not carried over is told."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from models.__main__ import main
from models.data import images
from models.data.images import Encoding, ImageError
from models.framework import BlurMapConfig, DeblurConfig, Framework, FrameworkConfig

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.random((24, 32, 3), np.float32)
BYTES = np.rint(255 * PIXELS).astype(np.uint8)
UNREADABLE = "its EXIF data cannot be read"


def test_garbage_for_exif_is_dropped_and_told(tmp_path):
    for suffix in (".png", ".webp"):
        path = tmp_path / f"a{suffix}"
        Image.fromarray(BYTES).save(path, exif=b"Exif\0\0MM\0*" + bytes(range(60)), lossless=True)
        found = images.read(path)
        assert np.array_equal(np.rint(255 * found.pixels), BYTES)
        assert found.encoding.exif == b""
        assert images.read_size(path) == (24, 32)


@pytest.mark.filterwarnings("ignore:Tag data larger than file")
@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".tif"])
def test_tags_of_wrong_types_go_and_others_stay(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    encoded = bytearray(exif.tobytes())
    # The maker's name becomes a rational number: type 5 in the place of 2.
    place = encoded.index(struct.pack("<HH", 0x010F, 2) if b"II" in encoded[:8] else struct.pack(">HH", 0x010F, 2))
    order = "<" if b"II" in encoded[:8] else ">"
    encoded[place : place + 4] = struct.pack(f"{order}HH", 0x010F, 5)
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags.tagtype[0x010F] = 5
        tags[0x010F] = TiffImagePlugin.IFDRational(1, 3)
        Image.fromarray(BYTES).save(path, tiffinfo=tags)
    else:
        Image.fromarray(BYTES).save(path, exif=bytes(encoded))
    found = images.read(path)
    assert found.pixels.shape == PIXELS.shape
    for other in (".png", ".jpg", ".tif", ".webp"):
        images.write(tmp_path / f"out{other}", found.pixels, found.encoding)
        assert images.read(tmp_path / f"out{other}").pixels.shape == PIXELS.shape


def test_exif_that_is_too_long_for_jpeg_is_dropped_there_alone(tmp_path):
    exif = Image.Exif()
    exif[0x9286] = "x"
    exif[0x010E] = "a" * 70_000
    encoding = Encoding(exif=exif.tobytes()[6:])
    (told,) = images.write(tmp_path / "a.jpg", PIXELS, encoding)
    assert "bytes, is too long for JPEG and was dropped" in told
    assert images.read(tmp_path / "a.jpg").encoding.exif == b""
    for suffix in (".png", ".tif", ".webp"):
        assert images.write(tmp_path / f"a{suffix}", PIXELS, encoding) == []
        assert len(images.read(tmp_path / f"a{suffix}").encoding.exif) > 70_000


def test_the_size_in_exif_follows_the_turning(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769).update({0xA002: 32, 0xA003: 24})
    Image.fromarray(BYTES).save(tmp_path / "a.png", exif=exif)
    found = images.read(tmp_path / "a.png")
    assert found.pixels.shape == (32, 24, 3)
    after = Image.Exif()
    after.load(b"Exif\0\0" + found.encoding.exif)
    nested = after.get_ifd(0x8769)
    assert (after[0x0112], nested[0xA002], nested[0xA003]) == (1, 24, 32)


def test_resolution_and_xmp_are_carried_and_text_is_told(tmp_path):
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'></x:xmpmeta>"
    Image.fromarray(BYTES).save(tmp_path / "a.jpg", dpi=(300, 300), xmp=packet)
    found = images.read(tmp_path / "a.jpg")
    assert found.encoding.dpi == (300, 300)
    assert found.encoding.xmp == packet
    assert images.write(tmp_path / "b.jpg", found.pixels, found.encoding) == []
    again = images.read(tmp_path / "b.jpg").encoding
    assert (again.dpi, again.xmp) == ((300, 300), packet)
    assert images.write(tmp_path / "b.tif", found.pixels, found.encoding) == []
    assert images.read(tmp_path / "b.tif").encoding.xmp == packet
    assert "its XMP data was dropped" in images.write(tmp_path / "b.png", found.pixels, found.encoding)[0]

    from PIL import PngImagePlugin

    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "hello")
    text.add(b"gAMA", struct.pack(">I", 45455))
    Image.fromarray(BYTES).save(tmp_path / "c.png", pnginfo=text)
    assert images.read(tmp_path / "c.png").notices == ("gAMA and text Comment of its PNG is not kept",)


@pytest.mark.parametrize("bits", [8, 16])
def test_bigtiff_reads(tmp_path, bits):
    samples = (PIXELS * (2**bits - 1)).astype(f"uint{bits}")
    tags = [(274, "H", 1, 6, True)]
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", bigtiff=True, extratags=tags)
    found = images.read(tmp_path / "a.tif")
    assert images.read_size(tmp_path / "a.tif") == found.pixels.shape[:2] == (32, 24)
    upright = np.rot90(samples, -1)
    assert np.array_equal(np.rint(found.pixels * (2**bits - 1)).astype(samples.dtype), upright)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_colours_multiplied_by_their_opacity_are_divided_by_it(tmp_path, dtype):
    white = 65535 if dtype == "uint16" else 1
    alpha = np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32, 1)
    stored = np.concatenate([PIXELS * alpha, alpha], axis=2) * white
    tifffile.imwrite(tmp_path / "a.tif", stored.astype(dtype), photometric="rgb", extrasamples=["assocalpha"])
    found = images.read(tmp_path / "a.tif")
    opaque = alpha[..., 0] > 0.1
    assert np.abs(found.pixels - PIXELS)[opaque].max() < 2e-4
    assert (found.pixels[alpha[..., 0] == 0] == 0).all()
    assert np.abs(found.encoding.alpha - alpha[..., 0]).max() < 1e-4


@pytest.mark.parametrize("grey", [False, True])
def test_a_transparent_colour_of_16_bits_is_opacity(tmp_path, grey):
    samples = (PIXELS[..., : 1 if grey else 3] * 65535).astype(np.uint16)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 32, 24, 16, 0 if grey else 2, 0, 0, 0)
    transparent = struct.pack(f">{samples.shape[2]}H", *samples[3, 5].tolist())
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    chunks = [(b"IHDR", head), (b"tRNS", transparent), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks))
    found = images.read(tmp_path / "a.png")
    expected = np.ones((24, 32), np.float32)
    expected[(samples == samples[3, 5]).all(axis=2)] = 0
    assert np.array_equal(found.encoding.alpha, expected)
    assert found.encoding.depth == 16
    assert np.abs(found.pixels[..., : samples.shape[2]] - samples / 65535).max() < 1e-4


def test_only_the_first_of_several_pictures_is_read_and_that_is_told(tmp_path):
    frames = [Image.fromarray(BYTES), Image.fromarray(255 - BYTES), Image.fromarray(BYTES // 2)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    tifffile.imwrite(tmp_path / "b.tif", np.stack([BYTES.astype(np.uint16)] * 3), photometric="rgb")
    for name, what in (("a.webp", "frames"), ("a.png", "frames"), ("a.tif", "pages"), ("b.tif", "pages")):
        found = images.read(tmp_path / name)
        assert found.notices == (f"only the first of its 3 {what} is read",), name
    assert np.array_equal(np.rint(255 * images.read(tmp_path / "a.png").pixels), BYTES)


def test_floating_point_from_0_to_255_is_questioned(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", 255 * PIXELS, photometric="rgb")
    (told,) = images.read(tmp_path / "a.tif").notices
    assert told.startswith("its values reach 25")
    tifffile.imwrite(tmp_path / "b.tif", 3 * PIXELS, photometric="rgb")  # light above white
    assert images.read(tmp_path / "b.tif").notices == ()


def test_an_empty_strip_is_no_black_picture(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, (PIXELS * 65535).astype(np.uint16), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags["StripByteCounts"]
        place, size = tag.valueoffset, tag.valuebytecount
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.tif does not decode: a strip or tile of it is empty"):
        images.read(path)


def test_twelve_bits_name_what_to_do(tmp_path):
    path = tmp_path / "a.tif"
    packed = np.zeros((24, 48), np.uint8)
    tifffile.imwrite(path, packed, photometric="minisblack")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tags = file.pages.first.tags
        places = {name: tags[name].valueoffset for name in ("BitsPerSample", "ImageWidth")}
    data[places["BitsPerSample"] : places["BitsPerSample"] + 2] = struct.pack("<H", 12)
    data[places["ImageWidth"] : places["ImageWidth"] + 2] = struct.pack("<H", 32)
    path.write_bytes(data)
    try:
        import imagecodecs  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ImageError, match="holds 12 bits a channel: convert it to 16 bits, or install the package"):
            images.read(path)


def test_a_small_file_that_claims_to_be_huge_is_refused(tmp_path):
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    (tmp_path / "bomb.png").write_bytes(data + bytes(4) + b"IDAT" + bytes(4))
    with pytest.raises(ImageError, match=r"bomb\.png has 100000 × 100000 pixels, more than the limit of 1000000000"):
        images.read(tmp_path / "bomb.png")
    images.write(tmp_path / "a.png", PIXELS)
    try:
        images.limit_pixels(100)
        with pytest.raises(ImageError, match="--max-pixels raises it"):
            images.read(tmp_path / "a.png")
    finally:
        images.limit_pixels(10**9)
    assert images.read(tmp_path / "a.png").pixels.shape == PIXELS.shape
    with pytest.raises(ValueError, match="the limit must be at least 1 pixel, got 0"):
        images.limit_pixels(0)


@pytest.fixture
def checkpoint(tmp_path):
    small = FrameworkConfig(
        (1, 2), BlurMapConfig(4, 1), DeblurConfig(options={"width": 4, "encoder": [], "middle": 1, "decoder": []}), None
    )
    Framework(small).save_pretrained(tmp_path / "checkpoint")
    return str(tmp_path / "checkpoint")


def test_a_batch_with_odd_files_is_deblurred_and_each_is_told_of(tmp_path, checkpoint, capsys):
    photos, other, out = tmp_path / "photos", tmp_path / "other", tmp_path / "out"
    for folder in (photos, other):
        folder.mkdir()
        images.write(folder / "a.png", PIXELS)
    Image.fromarray(BYTES).save(photos / "frames.png", save_all=True, append_images=[Image.fromarray(BYTES)])
    (photos / "b.HEIC").write_bytes(b"")
    (photos / "c.bmp").write_bytes(b"")
    assert main(["deblur", str(photos), str(other / "a.png"), "--out", str(out), "--checkpoint", checkpoint]) == 0
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    assert names == ["frames.png", "other/a.png", "photos/a.png"]
    told = capsys.readouterr().err
    assert "not read, as their suffix is none of .png, .tif, .tiff, .jpg, .jpeg, .webp: 1 .bmp, 1 .heic" in told
    assert "frames.png: only the first of its 2 frames is read" in told
    options = ["--out", str(out), "--checkpoint", checkpoint, "--max-pixels", "10"]
    try:
        assert main(["deblur", str(photos / "frames.png"), "--overwrite", *options]) == 1
    finally:
        images.limit_pixels(10**9)
    assert "has 32 × 24 pixels, more than the limit of 10" in capsys.readouterr().err
