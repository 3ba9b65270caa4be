"""The shipped rules: every pack in the folder ``catalog`` beside this file. Package data is the one thing read here."""

from importlib import resources

from rules.rule import Rule, load_rules


def packs() -> dict[str, tuple[Rule, ...]]:
    """Every pack by its file name; ``Refused`` names file, rule and key."""
    folder = resources.files("rules").joinpath("catalog")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return {file.name: load_rules(file.read_text(encoding="utf-8"), file.name) for file in files}


def catalog() -> tuple[Rule, ...]:
    """All shipped rules, in the order of their files."""
    return tuple(rule for pack in packs().values() for rule in pack)
