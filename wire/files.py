"""Files of declared data: one that cannot be read is refused with its place, as one that cannot be understood is."""

from importlib.resources.abc import Traversable

from rules.declared import Refused


def read(file: Traversable) -> str:
    """Read a text file; ``Refused`` names it."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise Refused(str(file), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Refused(str(file), f"is not UTF-8: {error}") from error


def declared_in(place: Traversable) -> list[Traversable]:
    """List the TOML files of a folder by name, or the one file that ``place`` is; ``Refused`` when there is none."""
    if place.is_file():
        return [place]
    try:
        files = [file for file in place.iterdir() if file.name.endswith(".toml")]
    except OSError as error:
        raise Refused(str(place), f"cannot be listed: {error.strerror}") from error
    if not files:
        raise Refused(str(place), "no TOML file is in this folder")
    return sorted(files, key=lambda file: file.name)
