import pytest

from cloud.dispatch import choose
from rules.district import Text, Unit


def unit(name: str, functions: str, territories: str = "") -> Unit:
    return Unit(name, Text(name, name), tuple(functions.split()), tuple(territories.split()))


UNITS = [
    unit("north", "drainage", "n"),
    unit("south", "drainage", "s"),
    unit("lights", "lighting"),
    unit("all", "drainage"),
]


@pytest.mark.parametrize(
    ("function", "territory", "lead", "code"),
    [
        ("drainage", "s", "south", "function_territory"),
        ("lighting", "s", "lights", "function_everywhere"),
        ("drainage", "west", "all", "function_everywhere"),
    ],
)
def test_function_first_then_territory(function: str, territory: str, lead: str, code: str) -> None:
    choice = choose(UNITS, function, territory)
    assert (choice.unit, choice.code) == (lead, code)


def test_there_is_always_exactly_one_lead() -> None:
    assert choose(UNITS[:2], "drainage", "west").code == "function_elsewhere"
    assert choose(UNITS, "drainage", "s", declined=["south"]).unit == "all"
    assert choose(UNITS[1:2], "drainage", "s", declined=["south"]).unit == "south", "nobody else is left"
    with pytest.raises(LookupError, match="gas"):
        choose(UNITS, "gas", "n")
