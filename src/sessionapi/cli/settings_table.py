"""The settings table of docs/settings.md, which `sessionapi settings` prints."""

from pydantic.fields import FieldInfo

from sessionapi.settings import Settings, range_of, variable


def table() -> str:
    """Return all settings as a Markdown table."""
    rows = ["| setting | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        limits = f" ({range_of(name)})" if range_of(name) else ""
        rows.append(f"| `{variable(name)}` | {_shown_default(field)} | {field.description}{limits} |")
    return "\n".join(rows)


def _shown_default(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "shown_default" in extra:
        return str(extra["shown_default"])
    value = field.default
    if isinstance(value, bool):
        return "`on`" if value else "`off`"
    return "none" if value == () else f"`{value}`"
