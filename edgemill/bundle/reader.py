"""Reading a bundle, every file checked against the manifest."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from edgemill.artifact import digest_path, size_of
from edgemill.bundle.manifest import MANIFEST, BundledVariant, Manifest
from edgemill.errors import StoreError

_MAX_MANIFEST_BYTES = 16 << 20
_REMEDY = "fetch the bundle again, or write it again from the store"


def read_bundle(path: Path) -> Manifest:
    """Read and verify a bundle folder.

    Files beside the manifest that it does not list are ignored: they are never loaded.

    Raises:
        StoreError: the manifest is missing or not valid, or a listed file is missing, is no
            regular file, or has another size or content than when it was written.
    """
    manifest = _read_manifest(path / MANIFEST)
    for variant in manifest.variants:
        _verify(path / variant.file, variant)
    return manifest


def _read_manifest(path: Path) -> Manifest:
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise StoreError("The manifest is too large.", where=str(path), got=f"{path.stat().st_size} bytes")
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise StoreError(
            "There is no bundle here.", where=str(path), expected=f"a folder with {MANIFEST}", remedy=_REMEDY
        ) from error
    except OSError as error:
        raise StoreError("The manifest cannot be read.", where=str(path), got=str(error), remedy=_REMEDY) from error
    except ValidationError as error:
        details = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'manifest'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise StoreError("The manifest is damaged.", where=str(path), got=details, remedy=_REMEDY) from error


def _verify(path: Path, variant: BundledVariant) -> None:
    parts = (path, *path.rglob("*")) if path.is_dir() else (path,)
    if not path.exists() or any(part.is_symlink() for part in parts):
        raise StoreError("A file of the bundle is missing.", where=str(path), remedy=_REMEDY)
    size = size_of(path)
    if size != variant.size_bytes:
        raise StoreError(
            "A file of the bundle is damaged.",
            where=str(path),
            expected=f"{variant.size_bytes} bytes",
            got=f"{size} bytes",
            remedy=_REMEDY,
        )
    digest = digest_path(path)
    if digest != variant.digest:
        raise StoreError(
            "A file of the bundle is damaged.",
            where=str(path),
            expected=f"sha256 {variant.digest}",
            got=f"sha256 {digest}",
            remedy=_REMEDY,
        )
