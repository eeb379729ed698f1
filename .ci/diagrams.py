"""Draw the Mermaid diagrams of the site when it is built, so that its pages load no script for them."""

import hashlib
from pathlib import Path
from typing import Any

import mermaidx

CACHE = Path("build/diagrams")


def svg(source: str, _language: str, css_class: str, _options: Any, _md: Any, **_: Any) -> str:
    """Format a fence of the language `mermaid` (a custom fence of pymdownx.superfences)."""
    name = "diagram-" + hashlib.sha256(source.encode()).hexdigest()[:12]
    file = CACHE / f"{name}.svg"
    if not file.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        file.write_text(mermaidx.render(source).svg().replace("my-svg", name))
    return f'<div class="{css_class}">{file.read_text()}</div>'
