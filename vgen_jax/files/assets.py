"""Weights that come with the package, under ``vgen_jax/assets``; a config names a folder there ``asset:vizdoom/slow``.

An asset is an export folder (``files.exports``) whose parameters are stored as float16, which its ``config.json`` says
together with the file's SHA-256, and a model card. A slow model's autoencoder is an asset of its own beside it.
"""

import shutil
from pathlib import Path

from vgen_jax.files.exports import DATASET_FILE, EXPORT_CONFIG, export, load_export
from vgen_jax.types import VgenError

PREFIX = "asset:"
CARD_FILE = "README.md"
ASSETS = Path(__file__).parent.parent / "assets"
AUTOENCODER = "autoencoder_dir"  # in a slow model's config.json: where its autoencoder is, from its folder
FILE_LIMIT, TOTAL_LIMIT = 16 * 2**20, 40 * 2**20  # bytes: what a repository and a wheel carry without pain


def names(root: Path) -> list[str]:
    """The assets of a folder, ``vizdoom/slow`` for one."""
    return sorted(str(path.parent.relative_to(root)) for path in root.rglob(EXPORT_CONFIG))


def asset_folder(name: str) -> Path:
    """The folder of an asset, by its name without the prefix.

    Raises:
        VgenError: if this installation has none of that name.
    """
    if name not in names(ASSETS):
        raise VgenError(
            f"{PREFIX}{name} is not in this installation, which has {', '.join(names(ASSETS)) or 'no weights'}: "
            "name one of these or the folder of an export, or install the package again"
        )
    return ASSETS / name


def write_asset(source: Path, root: Path, name: str, card: str, autoencoder: str) -> Path:
    """Writes an export as an asset; an existing one is replaced.

    Args:
        source: the export.
        root: the folder of all assets.
        name: its path there.
        card: its model card, Markdown.
        autoencoder: for a slow model the name of its autoencoder's asset, which replaces the copy in the export; else
            empty.

    Raises:
        VgenError: if a parameter does not fit float16, or a file or all of them together would be too large.
    """
    params, config = load_export(source)
    folder = root / name
    if autoencoder:
        if autoencoder not in names(root):
            raise VgenError(f"{root / autoencoder} is missing: bundle the autoencoder first")
        config = {**config, AUTOENCODER: str(Path(*[".."] * len(Path(name).parts), autoencoder))}
    export(folder, params, config, stored_as="float16")
    if (source / DATASET_FILE).is_file():
        shutil.copyfile(source / DATASET_FILE, folder / DATASET_FILE)
    (folder / CARD_FILE).write_text(card)
    check_sizes(root)
    return folder


def check_sizes(root: Path) -> None:
    """Raises if a file, or all of them together, are too large to be bundled."""
    sizes = {path: path.stat().st_size for path in root.rglob("*") if path.is_file()}
    for path, size in sizes.items():
        if size > FILE_LIMIT:
            raise VgenError(
                f"{path} has {size / 2**20:.1f} MiB, an asset at most {FILE_LIMIT >> 20}: train a smaller one"
            )
    if sum(sizes.values()) > TOTAL_LIMIT:
        raise VgenError(
            f"{root} has {sum(sizes.values()) / 2**20:.1f} MiB, at most {TOTAL_LIMIT >> 20} are bundled: remove one"
        )
