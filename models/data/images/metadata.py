"""Metadata of photographs. They never cost an image: what cannot be kept is dropped."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import ExifTags, Image

from .formats import EXIF_SIGNATURE, NESTED_TAGS

UNREADABLE = "its EXIF data cannot be read"
ORIENTATIONS = range(1, 9)
WIDTH, HEIGHT = 0xA002, 0xA003  # EXIF tags of the size, PixelXDimension and PixelYDimension
# What Pillow finds in PNG files that no writer here keeps, by what it is called there.
NOT_KEPT = {"gamma": "gAMA", "chromaticity": "cHRM", "srgb": ""}


@dataclass
class Metadata:
    """Metadata of one file.

    Attributes:
        exif: what can be used of it.
        orientation: as EXIF has it, 1 … 8; 1: upright.
        icc, xmp, dpi: as in `Encoding`.
        dropped: what the file has and `exif` has not, a line each.
    """

    exif: Image.Exif = field(default_factory=Image.Exif)
    orientation: int = 1
    icc: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    dropped: list[str] = field(default_factory=list)

    @classmethod
    def from_exif(cls, read: Callable[[], Image.Exif]) -> "Metadata":
        """Read EXIF data, which may be anything."""
        try:
            exif = read()
            orientation = exif.get(ExifTags.Base.Orientation, 1)
        except Exception:  # of any kind: nothing checks it before
            return cls(dropped=[UNREADABLE])
        return cls(exif, orientation if orientation in ORIENTATIONS else 1)

    @classmethod
    def from_picture(cls, picture: Image.Image) -> "Metadata":
        """Read the metadata of an image that Pillow has loaded."""
        metadata = cls.from_exif(picture.getexif)
        info: Mapping[Any, Any] = picture.info
        metadata.icc = info.get("icc_profile") or b""
        metadata.xmp = _as_bytes(info.get("xmp") or info.get("XML:com.adobe.xmp"))
        metadata.dpi = _as_dpi(info.get("dpi"))
        kept = set(getattr(picture, "text", ())) - {"XML:com.adobe.xmp"}
        names = [NOT_KEPT[key] for key in NOT_KEPT if NOT_KEPT[key] and key in info]
        names += [f"text {', '.join(sorted(kept))}"] if kept else []
        if names:
            metadata.dropped.append(f"{' and '.join(names)} of its PNG is not kept")
        return metadata

    def upright(self, height: int, width: int) -> bytes:
        """The EXIF data of the picture turned upright, of this size, as a TIFF structure; without what is no EXIF."""
        if not len(self.exif) and not self.exif.get_ifd(ExifTags.IFD.Exif):
            return b""
        if ExifTags.Base.Orientation in self.exif:
            self.exif[ExifTags.Base.Orientation] = 1
        nested = self.exif.get_ifd(ExifTags.IFD.Exif)
        if WIDTH in nested or HEIGHT in nested:
            nested[WIDTH], nested[HEIGHT] = width, height
        contents = _written(self.exif)
        if contents is not None:
            return contents
        gone = [tag for tag in list(self.exif) if tag not in NESTED_TAGS and not _is_writable({tag: self.exif[tag]})]
        for tag in gone:
            del self.exif[tag]
        for ifd in NESTED_TAGS:
            tags = self.exif.get_ifd(ifd)
            bad = [tag for tag in list(tags) if not _is_writable({tag: tags[tag]})]
            gone += bad
            for tag in bad:
                del tags[tag]
        self.dropped.append(f"{len(gone)} EXIF tags of wrong types are not kept")
        return _written(self.exif) or b""


def _written(exif: Image.Exif) -> bytes | None:
    """None where it cannot be written."""
    try:
        return exif.tobytes().removeprefix(EXIF_SIGNATURE)
    except Exception:  # of any kind, by values of any kind
        return None


def _is_writable(tags: dict[int, Any]) -> bool:
    exif = Image.Exif()
    exif.update(tags)
    return _written(exif) is not None


def _as_bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode(errors="replace")
    return bytes(value) if isinstance(value, (bytes, bytearray)) else b""


def _as_dpi(value: object) -> tuple[float, float] | None:
    try:
        across, down = (float(part) for part in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None
