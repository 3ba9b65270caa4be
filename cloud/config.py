"""The cloud process's configuration: TOML, read strictly."""

from importlib import resources
from pathlib import Path

import msgspec

from rules.declared import decode
from rules.district import District, load_district
from rules.rule import Rule, load_rules
from wire.clock import Clock
from wire.files import declared_in, read
from wire.session import Broker


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the district centre's API and page are served: to this ``host`` name (or address) and loopback's only."""

    host: str = "127.0.0.1"
    port: int = 8080


class Lan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the crew's page alone is served to phones: ``host`` is the address they call, ``token`` opens it once."""

    host: str
    port: int
    token: str

    def __post_init__(self) -> None:
        if len(self.token) < 16:
            raise ValueError("`token` must have at least 16 characters, or it could be guessed")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Paths are relative to the configuration's own folder.

    ``timeseries`` is the address of the store of samples (empty: an embedded one in ``data``), ``rules`` a folder of
    rule packs (empty: the shipped catalog).
    """

    district: str
    data: str
    broker: Broker
    http: Http = Http()
    lan: Lan | None = None
    clock: Clock = Clock()
    timeseries: str = ""
    rules: str = ""

    def load_district(self) -> District:
        return load_district(read(Path(self.district)), self.district)

    def load_rules(self) -> tuple[Rule, ...]:
        """Every pack of the catalog; ``Refused`` names the file, or the folder that holds none."""
        packs = declared_in(Path(self.rules) if self.rules else resources.files("rules") / "catalog")
        return tuple(rule for pack in packs for rule in load_rules(read(pack), str(pack)))


def load_config(path: Path) -> Config:
    """Read a configuration; ``Refused`` names the key, or the file that cannot be read."""
    config = decode(read(path), Config, str(path))
    folder = path.resolve().parent
    return msgspec.structs.replace(
        config,
        district=str(folder / config.district),
        data=str(folder / config.data),
        rules=str(folder / config.rules) if config.rules else "",
    )
