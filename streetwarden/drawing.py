"""Marks on an axis of time, as SVG whose places are percents: a drawing is as wide as the page has room for."""

from dataclasses import dataclass
from html import escape

from streetwarden.score import span
from wire.clock import NANOSECONDS, iso

_STEPS_S = (60, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 432000, 864000)
_TICKS = 9  # at most
_DAYS_NS = 3 * 86400 * NANOSECONDS  # a longer axis counts days, not hours


@dataclass(frozen=True, slots=True)
class Axis:
    """From ``begins`` to ``ends`` (UTC ns). Its ticks tell the hour of day, or how long before or after ``zero``."""

    begins: int
    ends: int
    zero: int | None = None

    def at(self, instant: int) -> float:
        """Give the place of an instant in percent; what lies beyond stands at the edge."""
        share = (instant - self.begins) / max(1, self.ends - self.begins)
        return round(100 * min(1.0, max(0.0, share)), 3)

    def ticks(self) -> list[tuple[float, str]]:
        """List places in percent and their labels."""
        length_s = (self.ends - self.begins) / NANOSECONDS
        step = next((each for each in _STEPS_S if length_s / each <= _TICKS), _STEPS_S[-1]) * NANOSECONDS
        zero = self.zero or 0
        first = zero - (zero - self.begins) // step * step
        return [(self.at(at), self._label(at)) for at in range(first, self.ends + 1, step) if at >= self.begins]

    def _label(self, instant: int) -> str:
        if self.zero is None:
            return iso(instant)[5:10] if self.ends - self.begins > _DAYS_NS else iso(instant)[11:16]
        if instant == self.zero:
            return "onset"
        return f"{'+' if instant > self.zero else '−'}{span(abs(instant - self.zero) / NANOSECONDS)}"


def bar(axis: Axis, lasts: tuple[int, int | None], y: int, height: int, style: str, about: str) -> str:
    """Draw a span of time, three pixels wide at least; one without an end runs to the edge."""
    begins, ends = lasts
    x, to = axis.at(begins), axis.at(axis.ends if ends is None else ends)
    place = f'x="{x}%" y="{y}" height="{height}" rx="2"'
    wide = f'<rect {place} width="{to - x:.3f}%"/>'
    return f'<g class="{style}">{_title(about)}{wide}<rect {place} width="3" class="least"/></g>'


def wire(axis: Axis, begins: int, ends: int, y: int, style: str, about: str) -> str:
    """Draw a thin line from one instant to another."""
    place = f'x1="{axis.at(begins)}%" x2="{axis.at(ends)}%" y1="{y}" y2="{y}"'
    return f'<line class="{style}" {place}>{_title(about)}</line>'


def spot(axis: Axis, at: int, y: int, radius: float, style: str, about: str) -> str:
    """Draw an instant as a spot."""
    return f'<circle class="{style}" cx="{axis.at(at)}%" cy="{y}" r="{radius}">{_title(about)}</circle>'


def stroke(axis: Axis, at: int, style: str, about: str) -> str:
    """Draw an instant as an upright stroke through the middle of its row."""
    x = axis.at(at)
    return f'<line class="{style}" x1="{x}%" x2="{x}%" y1="20%" y2="80%">{_title(about)}</line>'


def grid(axis: Axis) -> str:
    """Draw the ticks of an axis as lines behind a row."""
    return "".join(
        f'<line class="grid{" zero" if label == "onset" else ""}" x1="{x}%" x2="{x}%" y1="0" y2="100%"/>'
        for x, label in axis.ticks()
    )


def scale(axis: Axis) -> str:
    """Write the labels of an axis."""
    labels = ""
    for x, label in axis.ticks():
        anchor = "start" if x < 2 else "end" if x > 98 else "middle"
        labels += f'<text x="{x}%" y="14" text-anchor="{anchor}">{label}</text>'
    return f'<div class="row scale"><div></div><svg height="20" aria-hidden="true">{labels}</svg><div></div></div>'


def _title(about: str) -> str:
    return f"<title>{escape(about)}</title>"
