"""The charts of docs/scaling.md as plain SVG, readable on light and dark pages, made without a library."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from benchmarks.results import Bar, Results

WIDTH, LABEL, VALUE, ROW, TOP = 720, 190, 90, 34, 64
BAR = WIDTH - LABEL - VALUE
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 16px }
  .small { fill: #59636e; font-size: 12.5px }
  .ours { fill: #2456d6 }
  .other { fill: #9aa4af }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .ours { fill: #6c9bff }
    .other { fill: #656d76 }
  }
"""


def write(folder: Path, results: Results) -> None:
    """Write each chart for which there are bars."""
    folder.mkdir(parents=True, exist_ok=True)
    if results.protected:
        title = "A protected route, as a share of a bare one"
        below = "Requests a second; each beside a bare app of its own framework, in one run. More is better."
        (folder / "protected.svg").write_text(
            chart(title, below, results.protected, "{:.2f}".format, full=1.0)
        )
    if results.storm:
        title = "The protected route while 16 clients log in"
        below = "Half of its requests take longer than this, in milliseconds. Less is better."
        (folder / "login-storm.svg").write_text(chart(title, below, results.storm, _milliseconds))


def chart(
    title: str, below: str, bars: Sequence[Bar], shown: Callable[[float], str], full: float | None = None
) -> str:
    """Return one chart of horizontal bars; `full` is the value of the longest possible bar."""
    longest = full or max(bar.value for bar in bars)
    rows = "\n".join(_row(number, bar, longest, shown) for number, bar in enumerate(bars))
    height = TOP + ROW * len(bars) + 8
    told = escape("; ".join(f"{bar.name} {shown(bar.value)}" for bar in bars))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" role="img" aria-labelledby="title told">\n'
        f'<title id="title">{escape(title)}</title>\n'
        f'<desc id="told">{told}</desc>\n<style>{STYLE}</style>\n'
        f'<text class="title" x="0" y="20">{escape(title)}</text>\n'
        f'<text class="small" x="0" y="42">{escape(below)}</text>\n{rows}\n</svg>\n'
    )


def _row(number: int, bar: Bar, longest: float, shown: Callable[[float], str]) -> str:
    top = TOP + ROW * number
    width = max(2.0, BAR * min(bar.value / longest, 1))
    kind = "ours" if bar.ours else "other"
    return (
        f'<text x="0" y="{top + 17}">{escape(bar.name)}</text>'
        f'<rect class="{kind}" x="{LABEL}" y="{top}" width="{width:.1f}" height="24" rx="3"/>'
        f'<text x="{LABEL + width + 8:.1f}" y="{top + 17}">{shown(bar.value)}</text>'
    )


def _milliseconds(value: float) -> str:
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"
