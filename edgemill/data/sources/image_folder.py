"""Folders of images, one folder a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemill.data.dataset import SplitName
from edgemill.data.digest import existing_path
from edgemill.data.options import ImageFolderOptions, parse_options
from edgemill.data.source import Part, Source, decoding
from edgemill.errors import DataError
from edgemill.recipe import Data

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
_ACCEPTED = f"an image ({', '.join(sorted(_SUFFIXES))})"


def read(data: Data) -> Source:
    """Read CLASS/*.png below the path, or below its folders train and test where it has them.

    Samples are uint8 (N, H, W, channels); labels are the positions of the class folders in
    sorted order. A folder without class folders gives samples without labels.

    Raises:
        DataError: no images, an image that cannot be decoded, images of several sizes, or a
            class in test that training does not have.
    """
    root = existing_path(data)
    options: ImageFolderOptions = parse_options(data, ImageFolderOptions)
    if not root.is_dir():
        raise DataError("Source image_folder reads a folder.", where="data.path", got=f"the file {root}")
    main = root / "train" if (root / "train").is_dir() else root
    names = sorted(path.name for path in main.iterdir() if path.is_dir() and not path.name.startswith("."))
    parts = {SplitName.TRAIN: _part(main, names, options)}
    test = root / "test"
    if main != root and test.is_dir():
        strange = sorted({path.name for path in test.iterdir() if path.is_dir()} - set(names))
        if strange:
            raise DataError(
                "The test folder has classes that training does not have.",
                where=str(test),
                expected=", ".join(names) or "images without class folders",
                got=", ".join(strange),
            )
        size = (parts[SplitName.TRAIN].x.shape[1], parts[SplitName.TRAIN].x.shape[2])
        parts[SplitName.TEST] = _part(
            test, names, options.model_copy(update={"image_size": options.image_size or size})
        )
    return Source(parts, {"class_names": names} if names else {})


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())


def _part(folder: Path, names: list[str], options: ImageFolderOptions) -> Part:
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(names):
        if (folder / name).is_dir():
            files += [(path, label) for path in _images(folder / name)]
    if not names:
        files = [(path, -1) for path in _images(folder)]
    if not files:
        raise DataError(
            "The folder has no images.",
            where=str(folder),
            expected=f"class folders that hold {', '.join(sorted(_SUFFIXES))}",
            remedy="give the folder whose folders are the classes as data.path",
        )
    x = np.stack([_decode(path, options) for path, _ in files]) if options.image_size else _same_size(files, options)
    y = np.array([label for _, label in files], np.int64) if names else None
    return Part(x, y, str(folder))


def _same_size(files: list[tuple[Path, int]], options: ImageFolderOptions) -> NDArray[np.uint8]:
    first = _decode(files[0][0], options)
    x = np.empty((len(files), *first.shape), np.uint8)
    for index, (path, _) in enumerate(files):
        image = _decode(path, options)
        if image.shape != first.shape:
            raise DataError(
                "The images have several sizes.",
                where=str(path),
                expected=f"{first.shape[0]} x {first.shape[1]}, as {files[0][0]}",
                got=f"{image.shape[0]} x {image.shape[1]}",
                remedy="set data.options.image_size: [height, width]",
            )
        x[index] = image
    return x


def _decode(path: Path, options: ImageFolderOptions) -> NDArray[np.uint8]:
    with decoding(path, _ACCEPTED):
        from PIL import Image

        with Image.open(path) as opened:
            image = opened.convert("L" if options.channels == 1 else "RGB")
        if options.image_size is not None:
            height, width = options.image_size
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, np.uint8)
        return pixels[..., None] if options.channels == 1 else pixels
