import pytest

from rules.columns import Column, parse


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("level", Column("level")),
        (" tilt_change ", Column("tilt_change")),
        ("rate(level, 5min)", Column("level", "rate", "5min")),
        ("rate(rain_total,10min)", Column("rain_total", "rate", "10min")),
        ("rate( level ,\t90 s )", Column("level", "rate", "90s")),
        ("unchanged(level)", Column("level", "unchanged")),
        ("silence", Column()),
    ],
)
def test_a_text_names_a_column(text: str, column: Column) -> None:
    assert parse(text) == column
    assert parse(str(column)) == column


def test_one_column_has_one_text() -> None:
    assert str(parse("rate(level,5min)")) == str(parse("rate( level , 5 min)")) == "rate(level, 5min)"
    assert str(parse("silence")) == "silence"


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("", "is not a column"),
        ("level + 1", "is not a column"),
        ("rate(rate(level, 5min), 5min)", "is not a column"),
        ("Level", "is not a column"),
        ("slope(level, 5min)", "there are `rate`, `unchanged`"),
        ("rate(level)", "write `rate(level, 5min)`"),
        ("unchanged(level, 5min)", "write `unchanged(level)`"),
        ("rate(level, 5)", "is not a duration"),
        ("rate(level, 20ms)", "lasts 1s or more"),
    ],
)
def test_what_is_no_column_is_refused_with_its_cure(text: str, cure: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse(text)
    assert cure in str(refused.value)


def test_units_follow_the_metric() -> None:
    assert parse("level").unit("m") == "m"
    assert parse("rate(level, 5min)").unit("m") == "m/h"
    assert parse("unchanged(level)").unit("m") == "s"
    assert parse("silence").unit("") == "1"
    assert parse("rate(level, 5min)").window_s == 300.0
