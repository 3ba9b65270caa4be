"""The demo's cloud process: the cloud as it is, and the demo's own routes: ``CONFIG.toml STREET_URL [CREW_URL]``."""

import sys
from pathlib import Path

import uvloop

from cloud.config import load_config
from cloud.process import run
from streetwarden.street import mount
from wire import logs
from wire.refusing import refusing


def main() -> None:
    configuration, street, *crew = sys.argv[1:]
    with refusing():
        config = load_config(Path(configuration))
        logs.configure()
        uvloop.run(run(config, mount(street, crew[0] if crew else None)))


if __name__ == "__main__":
    main()
