"""Images of a source as one uint8 array: as they are where they are one already, else decoded once into a memory-mapped cache."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps

from clprune.datatypes import Source, digest_of_ids
from clprune.errors import DataError
from clprune.storage import SCHEMA_VERSION, digest_of_file, mapped_npy, read_json, read_npy, write_json

LARGEST_SIDE = 64  # pixels, by default: what the proxies are made for
LOOKED_AT = 256  # encoded images that are not files of their own, and decoded ones
THREADS, BLOCK = 2, 128  # of so many files at a time
DECODER = 3  # raised where the same files come to other pixels than before, so that images kept by an older clprune are decoded again
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # modes of PIL for 16 bits a pixel, in every order of bytes
ORIENTATION = 0x0112  # the tag of EXIF that says how an image is to be turned
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")  # of files that are taken for images in folders
MAGIC = (  # beginnings of encoded images, and the suffix that libraries know them by
    (b"\x89PNG", ".png"), (b"\xff\xd8", ".jpg"), (b"GIF8", ".gif"), (b"BM", ".bmp"), (b"RIFF", ".webp"),
    (b"II*\0", ".tif"), (b"MM\0*", ".tif"), (b"II+\0", ".tif"), (b"P5", ".pgm"), (b"P6", ".ppm"), (b"P4", ".ppm"),
)  # fmt: skip
T = TypeVar("T")


def load_images(
    source: Source, *, side: int | None = None, channels: int | None = None, cache: Path, on_progress: Callable[[int, int], None] | None = None
) -> tuple[UInt8[np.ndarray, "N H W C"], dict[str, Any]]:
    """All images (N, H, W, C) and the rule by which they were brought to one size.

    Rule: images that all have one size of at most 64 pixels stay as they are. Others are scaled so that the shorter side is `side` (by default
    the median shorter side, at most 64) and cropped around the centre to a square. One channel if all are gray, else RGB, unless `channels` says it; transparency on white;
    EXIF orientation applied; 16-bit divided down, numbers with a point or of 32 bits in [0, 1] multiplied up. Decoded images are kept in `cache`, keyed by the data and the rule. Raises DataError that names
    an image which cannot be decoded.
    """
    if _as_they_are(source, side) and source.images is not None and channels in (None, source.images.shape[3]):
        return source.images, {"size": list(source.images.shape[1:3]), "resized": False, "channels": source.images.shape[3]}
    shapes = source.shapes if source.shapes is not None else _looked_at(source, range(len(source)))
    (height, width, found), resized = _form(shapes, side)
    channels = channels or found
    rule = {
        "size": [height, width],
        "resized": resized,
        "channels": channels,
        "resize": "bilinear to the shorter side, then centre crop" if resized else "none",
    }
    state = _state_of(source)
    name = f"{source.fingerprint[:24]}-{digest_of_ids(source.sample_ids)[:16]}-{state or 'once'}-{height}x{width}x{channels}-{DECODER}"
    path, note = cache / f"{name}.npy", cache / f"{name}.json"
    if state and path.exists() and _digest_noted(note) == digest_of_file(path):
        return _told(read_npy(path, mapped=True), rule)
    with mapped_npy(path, (len(source), height, width, channels), np.uint8) as array:

        def decode(index: int) -> None:
            array[index] = _decoded(source, index, (width, height), channels == 1)

        for _ in in_blocks(decode, len(source), on_progress):
            pass
    write_json(note, {"schema_version": SCHEMA_VERSION, "sha256": digest_of_file(path), "rule": rule})
    return _told(read_npy(path, mapped=True), rule)


def _told(images: UInt8[np.ndarray, "N H W C"], rule: dict[str, Any]) -> tuple[UInt8[np.ndarray, "N H W C"], dict[str, Any]]:
    """Images and their rule, with a note where none of LOOKED_AT is brighter than 12 of 16 bits can be: each is decoded by itself, so that it comes out the same in every set, and not stretched."""
    brightest = int(images[_spread(len(images))].max())
    if not 0 < brightest < 16:
        return images, rule
    said = f"no pixel of {min(len(images), LOOKED_AT)} images looked at is brighter than {brightest} of 255"
    return images, rule | {"notes": [f"{said}: files of 16 bits that use 12 or fewer lose most levels here; multiply them up to all 16 first"]}


def _spread(n: int) -> list[int]:
    """At most LOOKED_AT rows, spread over all."""
    return np.unique(np.linspace(0, n - 1, min(n, LOOKED_AT)).astype(np.int64)).tolist()


def planned_form(source: Source, side: int | None = None) -> tuple[tuple[int, int, int], bool]:
    """Height, width and channels that `load_images` would bring the images to, and whether that takes decoding. Nothing is decoded here; where the listing read no heads, those of LOOKED_AT images spread over the set are taken for all."""
    if _as_they_are(source, side):
        assert source.images is not None
        return source.images.shape[1:], False
    return _form(source.shapes if source.shapes is not None else _looked_at(source, _spread(len(source))), side)[0], True


def _as_they_are(source: Source, side: int | None) -> bool:
    """Whether the images are one array already, of the wanted side."""
    return source.images is not None and side in (None, source.images.shape[1])


def _form(shapes: Int[np.ndarray, "N 3"], side: int | None) -> tuple[tuple[int, int, int], bool]:
    """Height, width and channels that images of these widths, heights and channels are brought to, and whether any is resized."""
    sides, channels = shapes[:, :2], 1 if (shapes[:, 2] == 1).all() else 3
    if side is None and (sides == sides[0]).all() and sides[0].max() <= LARGEST_SIDE:
        return (int(sides[0, 1]), int(sides[0, 0]), channels), False
    chosen = side or min(LARGEST_SIDE, int(np.median(sides.min(axis=1))))
    return (chosen, chosen, channels), True


def _state_of(source: Source) -> str:
    """What must be the same for images that were decoded before to be used again: ids, labels and sizes say nothing of pixels.

    Of files their size and the moment they were last written, also of those that hold many images each; of encoded images also the content of LOOKED_AT of them, spread over the set; "" for what a function or an object makes:
    it can't be asked whether it makes the same again.
    """
    digest = hashlib.sha256()
    if source.facts.get("made_by_code"):  # also where its items come from files: a transform may have changed
        return ""
    files = source.facts.get("files", ()) if source.paths is None else source.paths
    try:
        for status in (Path(file).stat() for file in files):
            digest.update(f"{status.st_size} {status.st_mtime_ns};".encode())
    except OSError:  # decoding names the file
        return ""
    if source.paths is None and source.read_bytes is not None:
        for row in _spread(len(source)):
            digest.update(hashlib.sha256(source.read_bytes(row)[0]).digest())
    elif source.paths is None:
        return ""
    return digest.hexdigest()[:16]


def _digest_noted(note: Path) -> str | None:
    """The digest of decoded images that were kept; None where there is none, or none that can be read: then they are decoded again."""
    try:
        return str(read_json(note, what="cache")["sha256"])
    except DataError:
        return None


def in_blocks(function: Callable[[int], T], n: int, on_progress: Callable[[int, int], None] | None = None) -> Iterator[list[T]]:
    """`function` of 0, 1, ..., n - 1 by THREADS threads, a block of BLOCK results at a time and in order; `on_progress(done, n)` after each block.

    Threads help while files are waited for and while a decoder works outside the interpreter; small tasks would cost more to hand over one by one than to do.
    """

    def block(start: int) -> list[T]:
        return [function(index) for index in range(start, min(start + BLOCK, n))]

    done = 0
    pool = ThreadPoolExecutor(THREADS)
    try:
        for results in pool.map(block, range(0, n, BLOCK)):
            yield results
            done += len(results)
            if on_progress:
                on_progress(done, n)
    finally:
        pool.shutdown(cancel_futures=True)  # what waits is of no use when one failed


def suffix_of(content: bytes) -> str:
    """The usual suffix of an encoded image, by its first bytes; else that of the format which PIL sees in it, or `.bin`.

    >>> suffix_of(b"II*\\0")
    '.tif'
    """
    for start, suffix in MAGIC:
        if content.startswith(start):
            return suffix
    try:
        with Image.open(io.BytesIO(content)) as image:
            return next((suffix for suffix, name in Image.registered_extensions().items() if name == image.format), ".bin")
    except Exception:  # whatever PIL raises: it is no image
        return ".bin"


def shape_of(image: Image.Image) -> tuple[int, int, int]:
    """Width, height and channels (1 gray, else 3) of an image as it is shown, from its header."""
    cheap = image.format != "PNG" or "exif" in image.info  # else PIL would decode all of it to look behind the pixels
    turned = cheap and image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    if image.format == "TIFF" and image.size != (image.tag_v2[256], image.tag_v2[257]):  # type: ignore[attr-defined]
        turned = False  # PIL has turned the size already
    width, height = image.size[::-1] if turned else image.size
    return width, height, 1 if image.mode in ("1", "L", "F", *DEEP) else 3


def _looked_at(source: Source, rows: Sequence[int]) -> Int[np.ndarray, "M 3"]:
    """Width, height and channels of the images of some rows, from the headers. Raises DataError that names an image which cannot be opened."""
    shapes = np.empty((len(rows), 3), dtype=np.int64)
    for at, index in enumerate(rows):
        image = _opened(source, index)
        if isinstance(image, np.ndarray):
            shapes[at] = image.shape[1], image.shape[0], 1 if image.ndim == 2 or image.shape[2] == 1 else 3
        else:
            shapes[at] = shape_of(image)
            image.close()
    return shapes


def _opened(source: Source, index: int) -> Any:
    try:
        return source.read_input(index)
    except Exception as error:  # whatever a reader raises, the message must name the sample
        raise _undecodable(source, index, error) from error


def _undecodable(source: Source, index: int, error: Exception) -> DataError:
    return DataError(f"{source.locator}: '{source.sample_ids[index]}' cannot be decoded ({type(error).__name__}: {error}). Mend or remove it.")


def _decoded(source: Source, index: int, size: tuple[int, int], gray: bool) -> np.ndarray:
    """One image (H, W, C) uint8 of the wanted size."""
    image = _opened(source, index)
    try:
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image.squeeze(-1) if image.ndim == 3 and image.shape[2] == 1 else image)
        if image.format == "JPEG":
            image.draft(None, (2 * size[0], 2 * size[1]))
        image.load()
    except Exception as error:  # whatever a decoder raises, the message must name the sample
        raise _undecodable(source, index, error) from error
    form = image.format
    image = ImageOps.exif_transpose(image) or image
    if image.mode == "F" or (image.mode == "I" and form != "PNG"):
        image = Image.fromarray(_of_wide_numbers(np.asarray(image), source, index))
    elif image.mode in DEEP:
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or (image.mode in ("P", "L", "RGB") and "transparency" in image.info):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if gray else "RGB")
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size[1], size[0], 1 if gray else 3)


def _of_wide_numbers(pixels: np.ndarray, source: Source, index: int) -> UInt8[np.ndarray, "H W"]:
    """Floats, or whole numbers of 32 bits, in [0, 1], [0, 255] or the 16 bits of [0, 65535] as uint8. Raises DataError that names the image where they lie elsewhere."""
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 65535):  # NaN lies nowhere
        raise _undecodable(source, index, ValueError(f"its pixels lie in [{low:g}, {high:g}], not in [0, 1], [0, 255] or [0, 65535]"))
    scale = 255 if high <= 1 else 1 if high <= 255 else 1 / 256
    return np.round(pixels * scale).clip(0, 255).astype(np.uint8)
