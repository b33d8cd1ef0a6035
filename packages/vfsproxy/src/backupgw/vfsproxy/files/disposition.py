"""Content-Disposition for any name (RFC 6266, with RFC 8187 for what is not ASCII)."""

from __future__ import annotations

from urllib.parse import quote

_ATTR_CHARS = "!#$&+-.^_`|~"  # RFC 8187, 3.2.1, beside letters and digits
_UNSAFE = frozenset('"\\%/;')


def attachment(name: str) -> str:
    """Return the header by which a client saves a file under `name`, its last segment alone."""
    name = name.rpartition("/")[2] or "download"
    plain = "".join(c if " " <= c <= "~" and c not in _UNSAFE else "_" for c in name)
    if plain == name:
        return f'attachment; filename="{plain}"'
    encoded = quote(name, safe=_ATTR_CHARS, errors="replace")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
