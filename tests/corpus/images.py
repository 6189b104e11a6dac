"""Images that lie, explode, are cut or are none, each among good ones; and those that only look odd, with their colour."""

import gzip
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from PIL import Image

from tests.corpus.case import Case
from tests.corpus.image_bytes import (
    RED,
    bmp,
    changed_frame,
    chunk,
    encoded,
    exif,
    halves,
    png,
    riff,
    segment,
    segments,
    vp8x,
    webp_part,
    with_scans,
    with_segments,
    zipped_text,
)
from tests.corpus.photos import data_set, zipped

BAD = "TOO_MANY_BAD_IMAGES"
Make = Callable[[], bytes]


@dataclass(frozen=True)
class ImageCase(Case):
    """`image` is the image itself; the content is a zip that holds it.

    `says`: what the refusal says of it. `colour`: the top left pixel of one that is good.
    """

    image: Make = bytes
    says: str = ""
    colour: tuple[int, int, int] | None = None


def cases() -> Iterator[ImageCase]:
    for name, (make, says) in (_PNGS | _JPEGS | _WEBPS | _BMPS | _FOREIGN).items():
        yield ImageCase(name, partial(_among_others, make), 422, BAD, image=make, says=says)
    for name, (make, colour) in _GOOD.items():
        yield ImageCase(name, partial(_among_others, make), 201, "", image=make, colour=colour)


def _among_others(make: Make) -> bytes:
    return zipped(data_set() | {"cat/odd.jpg": make()})


_WRONG = "cannot be decoded"

# A PNG's chunks are walked over by Pillow in Python, 10 µs each.
_PNGS: dict[str, tuple[Make, str]] = {
    "png: no pixels": (lambda: png(0, 0), ""),
    "png: no width": (lambda: png(0, 16), ""),
    "png: 65,535 x 65,535": (lambda: png(65_535, 65_535, pixels=b""), "than 25,000,000"),
    "png: 2^31 - 1 wide": (lambda: png(2**31 - 1, 1, pixels=b"\0"), "pixels"),
    "png: 2^32 - 1 wide": (lambda: png(2**32 - 1, 2**32 - 1, pixels=b"\0"), ""),
    "png: 25,005,000 pixels": (lambda: png(5001, 5000, pixels=bytes(99)), "at most 25,000,000"),
    "png: a strip": (lambda: png(1, 101, pixels=(b"\0" + bytes(3)) * 101), "100 times"),
    "png: fewer rows than it says": (lambda: png(24, 1600, pixels=bytes(73 * 16)), "is cut off"),
    "png: 24 megapixels of nothing": (lambda: png(4900, 4900, idat=zlib.compress(b"")), "is cut off"),
    "png: cut in its pixels": (lambda: encoded("PNG", size=(300, 300))[:150], "is cut off"),
    "png: cut in its header": (lambda: png()[:20], _WRONG),
    "png: signature alone": (lambda: png()[:8], _WRONG),
    "png: interlaced and cut": (lambda: _interlaced()[:-60], "is cut off"),
    "png: wrong checksum of the header": (lambda: _replaced(png(), 29, b"\0\0\0\0"), _WRONG),
    "png: pixels that are not packed": (lambda: png(idat=b"\xff" * 200), _WRONG),
    "png: 3 bits a pixel": (lambda: png(depth=3), _WRONG),
    "png: colour type 5": (lambda: png(colour=5), _WRONG),
    "png: an unknown filter": (lambda: png(pixels=(b"\x09" + bytes(72)) * 16), _WRONG),
    "png: a header of 5 bytes": (lambda: png(header=b"\0\0\0\x18\0"), _WRONG),
    "png: no header": (lambda: png()[:8] + png()[33:], _WRONG),
    "png: a chunk of 2 GB": (
        lambda: png(before=struct.pack(">I", 2**31 - 1) + b"tEXt" + b"x" * 50),
        _WRONG,
    ),
    "png: zTXt of 16 MB": (lambda: png(before=zipped_text(b"zTXt", 16 << 20)), _WRONG),
    "png: iTXt of 16 MB": (lambda: png(before=zipped_text(b"iTXt", 16 << 20)), _WRONG),
    "png: iCCP of 16 MB": (lambda: png(before=zipped_text(b"iCCP", 16 << 20)), _WRONG),
    "png: 120 texts of 0.6 MB": (lambda: png(before=zipped_text(b"zTXt", 600_000) * 120), _WRONG),
    "png: 60,000 chunks": (lambda: png(before=chunk(b"teSt") * 60_000), "50000 chunks"),
    "png: an animation": (lambda: _animation("PNG"), "animation"),
    "png: says 2^31 frames": (lambda: png(before=chunk(b"acTL", struct.pack(">2I", 2**31, 0))), "animation"),
}  # fmt: skip

_JPEGS: dict[str, tuple[Make, str]] = {
    "jpeg: 60,000 x 60,000": (lambda: changed_frame(encoded("JPEG"), size=(60_000, 60_000)), "25,000,000"),
    "jpeg: no height": (lambda: changed_frame(encoded("JPEG"), size=(24, 0)), ""),
    "jpeg: no width": (lambda: changed_frame(encoded("JPEG"), size=(0, 16)), ""),
    "jpeg: 1,000 scans": (lambda: with_scans((64, 64), 1000), "more than 100 scans"),
    "jpeg: 90 scans of 25 megapixels": (lambda: with_scans((5000, 5000), 80), "90 scans"),
    "jpeg: 12 bits": (lambda: changed_frame(encoded("JPEG"), precision=12), _WRONG),
    "jpeg: lossless": (lambda: changed_frame(encoded("JPEG"), marker=0xC3), _WRONG),
    "jpeg: cut in its pixels": (lambda: halves("JPEG")[:-40], _WRONG),
    "jpeg: cut in its header": (lambda: encoded("JPEG")[:100], _WRONG),
    "jpeg: first bytes alone": (lambda: b"\xff\xd8\xff", _WRONG),
    "jpeg: start and end alone": (lambda: b"\xff\xd8\xff\xd9", _WRONG),
    "jpeg: no tables": (lambda: _without(encoded("JPEG"), 0xDB), _WRONG),
    "jpeg: no frame": (lambda: _without(encoded("JPEG"), 0xC0), _WRONG),
    "jpeg: 60,000 segments": (lambda: with_segments(encoded("JPEG"), segment(0xFE) * 60_000), "50000 segments"),
    "jpeg: 100,000 bytes of filling": (lambda: with_segments(encoded("JPEG"), b"\xff" * 100_000), "filling"),
    "jpeg: 60 EXIF blocks": (
        lambda: with_segments(encoded("JPEG"), segment(0xE1, exif(1) + bytes(60_000)) * 60),
        "20 EXIF blocks",
    ),
    "jpeg: 60 EXIF blocks behind an end": (
        lambda: with_segments(encoded("JPEG"), b"\xff\xd9" + segment(0xE1, exif(1) + bytes(60_000)) * 60),
        "20 EXIF blocks",
    ),
    "jpeg: 60 EXIF blocks within others": (lambda: with_segments(encoded("JPEG"), _hidden(exif(1)) * 60), "EXIF"),
    "jpeg: restart markers in its header": (
        lambda: with_segments(encoded("JPEG"), b"".join(segment(0xFE) + b"\xff\xd0" * 20_000 for _ in range(9))),
        "filling",
    ),
    "jpeg: a segment beyond the end": (lambda: b"\xff\xd8\xff\xe0\xff\xff" + bytes(99), _WRONG),
    "jpeg: 255 components": (lambda: _components(encoded("JPEG"), 255), _WRONG),
    "jpeg: JPEG-LS": (lambda: changed_frame(encoded("JPEG"), marker=0xF7), _WRONG),
}  # fmt: skip

_WEBPS: dict[str, tuple[Make, str]] = {
    "webp: a canvas of 16,384 x 16,384": (lambda: riff(vp8x(16_384, 16_384), (b"VP8L", bytes(9))), "16384x16384"),
    "webp: a canvas of 2^24 x 2^24": (lambda: riff(vp8x(1 << 24, 1 << 24)), "25,000,000"),
    "webp: a canvas larger than its picture": (lambda: riff(vp8x(400, 400), webp_part()), _WRONG),
    "webp: a canvas smaller than its picture": (lambda: riff(vp8x(2, 2), webp_part()), _WRONG),
    "webp: a lossless header of 16,384 x 16,384": (lambda: riff((b"VP8L", b"\x2f\xff\xff\xff\x0f" + bytes(9))), "16384x"),
    "webp: cut in its pixels": (lambda: halves("WEBP", lossless=True)[:-20], _WRONG),
    "webp: cut in its header": (lambda: encoded("WEBP")[:22], "cut off"),
    "webp: no picture": (lambda: riff(vp8x(24, 16)), _WRONG),
    "webp: an unknown kind": (lambda: riff((b"VP9 ", bytes(30))), "unknown kind"),
    "webp: an animation": (lambda: _animation("WEBP"), "animation"),
    "webp: 60,000 parts": (lambda: riff(vp8x(24, 16), *[(b"XXXX", b"")] * 60_000, webp_part()), "50000 chunks"),
    "webp: says 4 GB": (lambda: riff(webp_part(), size=0xFFFFFFFF), ""),
}  # fmt: skip

_BMPS: dict[str, tuple[Make, str]] = {
    "bmp: 30,000 x 30,000": (lambda: bmp(30_000, 30_000, pixels=bytes(100)), "25,000,000"),
    "bmp: no width": (lambda: bmp(0, 16, pixels=bytes(100)), ""),
    "bmp: negative width": (lambda: bmp(-24, 16, pixels=bytes(2000)), ""),
    "bmp: height of -2^31": (lambda: bmp(24, -(2**31), pixels=bytes(100)), ""),
    "bmp: fewer rows than it says": (lambda: bmp(24, 1600, pixels=bytes(100)), _WRONG),
    "bmp: run lengths of 25 megapixels": (
        lambda: bmp(5000, 5000, bits=8, compression=1, palette=bytes(1024), pixels=b"\0\0" * 5000, colours=256),
        "run-length coded",
    ),
    "bmp: a million runs of nothing": (
        lambda: bmp(bits=8, compression=1, palette=bytes(1024), pixels=b"\0\0" * 1_000_000, colours=256),
        "run-length coded",
    ),
    "bmp: run lengths that end early": (
        lambda: bmp(24, 16, bits=8, compression=1, palette=bytes(1024), pixels=b"\x09\x01", colours=256),
        _WRONG,
    ),
    "bmp: an unknown compression": (lambda: bmp(compression=9), _WRONG),
    "bmp: 7 bits a pixel": (lambda: bmp(bits=7), _WRONG),
    "bmp: pixels beyond the end": (lambda: bmp(offset=1 << 30), _WRONG),
    "bmp: header alone": (lambda: bmp()[:54], _WRONG),
    "bmp: a JPEG within": (lambda: bmp(compression=4, pixels=encoded("JPEG")), _WRONG),
}  # fmt: skip

_FOREIGN: dict[str, tuple[Make, str]] = {
    "no image: empty": (lambda: b"", "is empty"),
    "no image: text": (lambda: b"hello", "is no image"),
    "no image: HTML": (lambda: b"<!doctype html><h1>404</h1>", "is no image"),
    "no image: zeros": (lambda: bytes(1000), "is no image"),
    "no image: a zip": (lambda: zipped({"a": b"b"}), "is no image"),
    "no image: a gzip of a JPEG": (lambda: gzip.compress(encoded("JPEG")), "is no image"),
    "not read: GIF": (lambda: encoded("GIF", "P", colour=3), "is a GIF"),
    "not read: TIFF": (lambda: encoded("TIFF"), "is a TIFF"),
    "not read: SVG": (lambda: b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "is an SVG"),
    "not read: SVG of a billion laughs": (
        lambda: b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><svg>&b;</svg>',
        "is an SVG",
    ),
    "not read: AVIF": (lambda: encoded("AVIF"), "is an AVIF"),
    "not read: HEIC": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "is a HEIC"),
    "not read: JPEG 2000": (lambda: encoded("JPEG2000"), "is a JPEG 2000"),
    "not read: Photoshop": (lambda: b"8BPS\0\x01" + bytes(99), "is a Photoshop"),
    "not read: PPM": (lambda: encoded("PPM"), "is no image"),
    "not read: PPM of a terabyte": (lambda: b"P6\n1000000 1000000\n255\n", "is no image"),
    "not read: EPS": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image"),
    "not read: an icon": (lambda: encoded("ICO"), "is no image"),
}  # fmt: skip


def _profile(num_bytes: int) -> bytes:
    """Segments of a colour profile that is none."""
    part = b"x" * 60_000
    count = num_bytes // len(part)
    return b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([number + 1, count]) + part) for number in range(count)
    )


_BLUE = (30, 40, 200)
# What ordinary cameras, scanners, editors and phones write.
_GOOD: dict[str, tuple[Make, tuple[int, int, int] | None]] = {
    "good: upside down by EXIF": (lambda: halves("JPEG", exif=exif(3), quality=95), _BLUE),
    "good: on its side by EXIF in PNG": (lambda: halves("PNG", exif=exif(6)), _BLUE),
    "good: EXIF that is broken": (lambda: halves("PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), RED),
    "good: EXIF of another kind": (lambda: with_segments(encoded("JPEG", quality=95), segment(0xE1, b"Exif\0\0x")), RED),
    "good: an orientation of 9": (lambda: halves("PNG", exif=exif(9)), RED),
    "good: 16 bits of grey": (lambda: png(depth=16, colour=0, pixels=(b"\0" + b"\x80\x80" * 24) * 16), (128,) * 3),
    "good: 16 bits of grey, dark": (lambda: png(depth=16, colour=0, pixels=(b"\0" + b"\x02\x02" * 24) * 16), (2,) * 3),
    "good: 16 bits of colour": (
        lambda: png(depth=16, pixels=(b"\0" + bytes(value for one in RED for value in (one, one)) * 24) * 16),
        RED,
    ),
    "good: 16 bits of grey with alpha": (
        lambda: png(depth=16, colour=4, pixels=(b"\0" + b"\x80\x80\xff\xff" * 24) * 16),
        (128,) * 3,
    ),
    "good: 1 bit": (lambda: png(depth=1, colour=0, pixels=b"\0\xff\xff\xff" * 16), (255,) * 3),
    "good: 2 bits": (lambda: png(depth=2, colour=0, pixels=(b"\0" + b"\x55" * 6) * 16), (85,) * 3),
    "good: 4 bits": (lambda: png(depth=4, colour=0, pixels=(b"\0" + b"\x11" * 12) * 16), (17,) * 3),
    "good: grey": (lambda: encoded("PNG", "L", colour=77), (77,) * 3),
    "good: grey with alpha": (lambda: encoded("PNG", "LA", colour=(77, 9)), (77,) * 3),
    "good: colour with alpha": (lambda: encoded("PNG", "RGBA", colour=(*RED, 9)), RED),
    "good: a palette": (
        lambda: png(colour=3, pixels=(b"\0" + b"\x01" * 24) * 16, between=chunk(b"PLTE", bytes(3) + bytes(RED))),
        RED,
    ),
    "good: a palette with transparency": (
        lambda: png(
            colour=3,
            pixels=(b"\0" + b"\x01" * 24) * 16,
            between=chunk(b"PLTE", bytes(3) + bytes(RED)) + chunk(b"tRNS", b"\x80\x07"),
        ),
        RED,
    ),
    "good: interlaced": (lambda: _interlaced(), (0, 0, 0)),
    "good: CMYK": (lambda: encoded("JPEG", "CMYK", colour=(0, 255, 255, 0), quality=95), (255, 0, 0)),
    "good: YCCK of Adobe": (lambda: _adobe(encoded("JPEG", "CMYK", colour=(0, 255, 255, 0), quality=95)), None),
    "good: grey JPEG": (lambda: encoded("JPEG", "L", colour=77, quality=95), (77,) * 3),
    "good: progressive": (lambda: encoded("JPEG", progressive=True, quality=95), RED),
    "good: restart markers": (lambda: encoded("JPEG", restart_marker_blocks=1, quality=95), RED),
    "good: a profile of 600 KB": (lambda: with_segments(encoded("JPEG", quality=95), _profile(600_000)), RED),
    "good: a profile of 16 KB in PNG": (lambda: png(before=zipped_text(b"iCCP", 16_000)), RED),
    "good: several pictures in one (MPO)": (lambda: _several(), RED),
    "good: a film behind it": (lambda: encoded("JPEG", quality=95) + b"\xff\xda\xff\xda ftypmp42" * 5000, RED),
    "good: a zip behind it": (lambda: png() + zipped({"a.txt": b"b"}), RED),
    "good: filling between segments": (lambda: with_segments(encoded("JPEG", quality=95), b"\xff" * 50), RED),
    "good: 1 x 1": (lambda: png(1, 1), RED),
    "good: an animation of one frame": (lambda: _animation("WEBP", frames=1), None),
    "good: WebP": (lambda: encoded("WEBP", quality=95), RED),
    "good: lossless WebP": (lambda: encoded("WEBP", lossless=True), RED),
    "good: WebP with alpha": (lambda: encoded("WEBP", "RGBA", colour=(*RED, 200), lossless=True), RED),
    "good: WebP with EXIF": (lambda: halves("WEBP", lossless=True, exif=exif(3)), _BLUE),
    "good: BMP": (lambda: bmp(), RED),
    "good: BMP from above": (lambda: bmp(24, -16), RED),
    "good: BMP with a palette": (
        lambda: bmp(24, 16, bits=8, palette=bytes([*reversed(RED), 0]) * 256, pixels=bytes(384), colours=256),
        RED,
    ),
    "good: BMP with run lengths": (
        lambda: bmp(
            *(24, 16), bits=8, compression=1, palette=bytes([*reversed(RED), 0]) * 256,
            pixels=b"\x18\x01\0\0" * 16 + b"\0\x01", colours=256,
        ),
        RED,
    ),
    "good: a PNG called jpg": (lambda: png(), RED),
    "good: texts": (lambda: png(before=chunk(b"tEXt", b"Comment\0hello") * 200), RED),
}  # fmt: skip


def _replaced(content: bytes, at: int, by: bytes) -> bytes:
    return content[:at] + by + content[at + len(by) :]


def _interlaced() -> bytes:
    """8 x 8 of grey in the seven passes of Adam7: (columns, rows) of each."""
    passes = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4))
    rows = b"".join(
        (b"\0" + bytes([number * 30]) * width) * height for number, (width, height) in enumerate(passes)
    )
    # Stored, not packed, so that a cut takes pixels.
    return png(8, 8, colour=0, interlace=1, idat=zlib.compress(rows, 0))


def _animation(format: str, frames: int = 3) -> bytes:
    images = [Image.new("RGB", (24, 16), (90 * number, 30, 40)) for number in range(frames)]
    file = io.BytesIO()
    images[0].save(file, format, save_all=True, append_images=images[1:], duration=40)
    return file.getvalue()


def _several() -> bytes:
    file = io.BytesIO()
    second = Image.new("RGB", (24, 16), _BLUE)
    Image.new("RGB", (24, 16), RED).save(file, "MPO", save_all=True, append_images=[second], quality=95)
    return file.getvalue()


def _hidden(block: bytes) -> bytes:
    """A block within a segment that the standard skips as a whole, and Pillow does not."""
    return b"\xff\xf0\xff\xff" + segment(0xE1, block)


def _without(jpeg: bytes, marker: int) -> bytes:
    return b"\xff\xd8" + b"".join(part for found, part in segments(jpeg) if found != marker) + b"\xff\xd9"


def _components(jpeg: bytes, count: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 9
    return _replaced(jpeg, at, bytes([count]))


def _adobe(cmyk: bytes) -> bytes:
    """The CMYK file with the mark of YCCK: the same numbers, read as luma and chroma."""
    at = cmyk.index(b"Adobe\0") + 11
    return _replaced(cmyk, at, b"\x02")
