"""The cloud process's configuration: TOML, read strictly."""

from importlib import resources
from pathlib import Path

import msgspec

from rules.declared import Refused, decode
from rules.district import District, load_district
from rules.rule import Rule, load_rules
from wire.clock import Clock
from wire.session import Broker


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the district centre's API and page are served."""

    host: str = "127.0.0.1"
    port: int = 8080


class Lan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the crew's page alone is served to phones; ``token`` opens it once."""

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
        return load_district(_read(Path(self.district)), self.district)

    def load_rules(self) -> tuple[Rule, ...]:
        """Every pack of the catalog; ``Refused`` names the file, or the folder that holds none."""
        folder = Path(self.rules) if self.rules else Path(str(resources.files("rules") / "catalog"))
        packs = sorted(folder.glob("*.toml"))
        if not packs:
            raise Refused(str(folder), "no rule pack (*.toml) is in this folder")
        return tuple(rule for pack in packs for rule in load_rules(_read(pack), str(pack)))


def load_config(path: Path) -> Config:
    """Read a configuration; ``Refused`` names the key, or the file that cannot be read."""
    config = decode(_read(path), Config, str(path))
    folder = path.resolve().parent
    return msgspec.structs.replace(
        config,
        district=str(folder / config.district),
        data=str(folder / config.data),
        rules=str(folder / config.rules) if config.rules else "",
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(str(path), f"cannot be read: {error}") from error
