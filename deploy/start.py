"""Start one part of the system in a container: ``start.py gateway|cloud|sim CONFIGURATION.toml``.

Secrets live in the environment, never in a file of the repository: ``${NAME}`` in the configuration is filled in here,
into a copy that only this container's memory holds.
"""

import os
import string
import sys
import tempfile
from pathlib import Path


def filled(text: str, environment: dict[str, str]) -> str:
    """Replace every ``${NAME}`` of a configuration, quoted for TOML; ``KeyError`` names one that is not set."""
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in environment.items()}
    return string.Template(text).substitute(quoted)


def main() -> None:
    part, source = sys.argv[1:]
    try:
        text = filled(Path(source).read_text(encoding="utf-8"), dict(os.environ))
    except KeyError as missing:
        sys.exit(f"{source}: the environment variable {missing} is not set")
    with tempfile.NamedTemporaryFile("w", prefix=f"{part}-", suffix=".toml", delete=False, encoding="utf-8") as file:
        file.write(text)
    os.execvp("streetwarden", ["streetwarden", part, "run", file.name])  # noqa: S606, S607 - the image's own command


if __name__ == "__main__":
    main()
