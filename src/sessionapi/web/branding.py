"""The brand of the pages, from the settings: the accent colour and the brand's mark.

Both are separate files, because the content security policy of the pages does not allow inline styles.
pages.css computes the shades of the accent in which links are readable.
"""

from html import escape

_WHITE_BELOW = 0.179
"""Luminance at which white and black text have the same contrast with a colour, at least 4.58 (WCAG 2.2)."""


def stylesheet(accent: str) -> str:
    """Return the CSS custom properties that pages.css uses, for an accent colour such as `#2456d6`."""
    text = _text_on(accent)
    pressed = f"color-mix(in srgb, {accent} 86%, {'#000' if text == '#fff' else '#fff'})"
    return f":root {{ --accent: {accent}; --accent-pressed: {pressed}; --on-accent: {text}; }}\n"


def mark(accent: str, brand: str) -> str:
    """Return the mark of a brand as SVG: its first letter on the accent colour."""
    letter = escape(next((each for each in brand if each.isalnum()), "s").upper())
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40">'
        f'<rect width="40" height="40" rx="10" fill="{accent}"/>'
        f'<text x="20" y="28" text-anchor="middle" font-family="Inter, system-ui, sans-serif" font-size="22"'
        f' font-weight="700" fill="{_text_on(accent)}">{letter}</text></svg>'
    )


def _text_on(accent: str) -> str:
    """Return the colour of text on the accent: white or black, whichever has the higher contrast."""
    return "#fff" if _luminance(accent) < _WHITE_BELOW else "#000"


def _luminance(colour: str) -> float:
    """Return the relative luminance (WCAG 2.2) of a colour such as `#2456d6`."""
    parts = [value / 255 for value in bytes.fromhex(colour[1:])]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
