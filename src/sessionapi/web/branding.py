"""The brand of the pages, from the settings: the accent colour in readable shades, and the brand's mark.

Both are separate files, because the content security policy of the pages does not allow inline styles.
"""

from html import escape

READABLE = 4.5
"""The minimum contrast of text (WCAG 2.2, 1.4.3)."""
LIGHT, DARK = (255, 255, 255), (22, 24, 29)
"""The backgrounds of the pages' cards, as in pages.css."""
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
"""Text on the accent colour. One of the two has a contrast of at least 4.58 to any colour."""

Colour = tuple[int, int, int]


def stylesheet(accent: str) -> str:
    """Return the CSS custom properties that pages.css uses, for an accent colour such as `#2456d6`."""
    given = _colour(accent)
    text = _on(given)
    pressed = _mix(given, BLACK if text == WHITE else WHITE, 0.14)
    shades = {
        "accent": given,
        "accent-pressed": pressed,
        "on-accent": text,
        "accent-on-light": _readable(given, LIGHT, BLACK),
        "accent-on-dark": _readable(given, DARK, WHITE),
    }
    return ":root { " + " ".join(f"--{name}: {_text(shade)};" for name, shade in shades.items()) + " }\n"


def mark(accent: str, brand: str) -> str:
    """Return the mark of a brand as SVG: its first letter on the accent colour."""
    colour = _colour(accent)
    letter = escape(next((each for each in brand if each.isalnum()), "s").upper())
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40">'
        f'<rect width="40" height="40" rx="10" fill="{_text(colour)}"/>'
        f'<text x="20" y="28" text-anchor="middle" font-family="Inter, system-ui, sans-serif" font-size="22"'
        f' font-weight="700" fill="{_text(_on(colour))}">{letter}</text></svg>'
    )


def contrast(one: Colour, other: Colour) -> float:
    """Return the contrast of two colours, from 1 to 21."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _on(colour: Colour) -> Colour:
    return max((WHITE, BLACK), key=lambda text: contrast(text, colour))


def _readable(colour: Colour, background: Colour, towards: Colour) -> Colour:
    """Return the first shade towards black or white that is readable, on tinted backgrounds too."""
    shades = [_mix(colour, towards, step / 20) for step in range(21)]
    return next(shade for shade in shades if contrast(shade, background) >= READABLE + 0.8)


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _luminance(colour: Colour) -> float:
    parts = [part / 255 for part in colour]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _colour(text: str) -> Colour:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _text(colour: Colour) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
