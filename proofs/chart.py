"""Line charts as SVG text, because a few lines over time need no library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, GAP = 900, 190, 70, 52
COLOURS = ("#2456d6", "#c2410c", "#15803d", "#7c3aed", "#be123c", "#0e7490")


@dataclass(frozen=True)
class Panel:
    """One chart: a title with the unit, and lines by name, each a list of (minutes, value)."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def svg(title: str, notes: Sequence[str], panels: Sequence[Panel]) -> str:
    """Return a picture of panels, one below the other, over the same time."""
    top = 44 + 16 * len(notes)
    tall = top + len(panels) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{tall}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="26" font-size="17" fill="#111827">{title}</text>',
        *(_small(LEFT, 46 + 16 * number, note) for number, note in enumerate(notes)),
    ]
    last = max(moment for panel in panels for line in panel.lines.values() for moment, _ in line)
    for number, panel in enumerate(panels):
        parts += _panel(panel, top + number * (HEIGHT + GAP) + 24, last)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, y: float, last: float) -> list[str]:
    highest = _round_up(max(value for line in panel.lines.values() for _, value in line))
    wide = WIDTH - LEFT - 20

    def at(moment: float, value: float) -> str:
        return f"{LEFT + wide * moment / last:.1f},{y + HEIGHT - 20 - (HEIGHT - 40) * value / highest:.1f}"

    parts = [f'<text x="{LEFT}" y="{y}" font-size="13" fill="#111827">{panel.title}</text>']
    for step in range(5):
        level = highest * step / 4
        x, line_y = at(0, level).split(",")
        parts.append(f'<path d="M{x},{line_y}H{WIDTH - 20}" stroke="#e5e7eb"/>')
        parts.append(_small(LEFT - 8, float(line_y) + 4, f"{level:g}", anchor="end"))
    for step in range(5):
        x = float(at(last * step / 4, 0).split(",")[0])
        anchor = ("start", "middle", "middle", "middle", "end")[step]
        parts.append(_small(x, y + HEIGHT - 4, f"{round(last * step / 4, 1):g} min", anchor=anchor))
    for number, (name, line) in enumerate(panel.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(at(*point) for point in line)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(_small(LEFT + 330 + 130 * number, y, name, colour=colour))
    return parts


def _small(x: float, y: float, text: str, *, anchor: str = "start", colour: str = "#6b7280") -> str:
    return f'<text x="{x}" y="{y}" font-size="11" fill="{colour}" text-anchor="{anchor}">{text}</text>'


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 4, 5, 8 x 10^n, so that its quarters are round numbers."""
    power = 1.0
    while power * 8 < value:
        power *= 10
    while power > value > 0:
        power /= 10
    return next(power * each for each in (1, 2, 4, 5, 8, 10) if power * each >= value)
