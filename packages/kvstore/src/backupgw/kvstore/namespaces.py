"""A Store's namespaces: which nesting levels hold for a name, and where it may lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .backends.base import Backend
from .names import check_key
from .utils.nesting import CHARACTERS_PER_LEVEL, nest

KNOWN = frozenset({"levels", "cache", "max_age", "size"})
"""What the config of a namespace may say."""

HEX_FOLDERS = 256
"""Folders a level has: two hexadecimal digits."""


class Namespaces:
    """Levels by namespace; the longest namespace that a name starts with decides.

    Raises:
        ValueError: no namespace, or levels that are not a list of numbers from 0 on.
    """

    def __init__(self, levels: Mapping[str, Sequence[int]]) -> None:
        if not levels or not isinstance(levels, Mapping):
            raise ValueError("No or invalid levels configuration given.")
        for namespace, numbers in levels.items():
            _check_levels(namespace, numbers)
        self.by_length = sorted(
            levels.items(), key=lambda namespace: len(namespace[0]), reverse=True
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Mapping[str, object]]) -> Namespaces:
        """Read `{namespace: {"levels": [0]}}`; what is said of caching may stand beside it.

        Raises:
            ValueError: it is anything else.
        """
        if not config or not isinstance(config, Mapping):
            raise ValueError("No or invalid config given.")
        levels: dict[str, Sequence[int]] = {}
        for namespace, settings in config.items():
            if not isinstance(settings, Mapping):
                # borgstore raises ValueError for whatever is wrong with a config
                raise ValueError(f"{namespace!r}: {settings!r} is no dict")  # noqa: TRY004
            if unknown := sorted(set(settings) - KNOWN):
                raise ValueError(
                    f"{namespace!r}: unknown keys {unknown!r} (known: {', '.join(sorted(KNOWN))})"
                )
            given = settings.get("levels")
            if not given or not isinstance(given, list):
                raise ValueError(f"{namespace!r}: 'levels' must be a list of one or more ints")
            levels[namespace] = given
        return cls(levels)

    def levels(self, name: str) -> Sequence[int]:
        """Return the levels that hold for `name`. Raises KeyError where no namespace matches."""
        for namespace, levels in self.by_length:
            if name.startswith(namespace):
                return levels
        raise KeyError(f"no matching namespace found for: {name}")

    def nested(self, name: str, level: int, suffix: str) -> str:
        """Return where `name` lies at that level.

        Raises:
            InvalidName: the key is not one, or is too long when nested.
        """
        check_key(name)
        nested = nest(name, level, add_suffix=suffix)
        if "//" in nested:  # the key is too short for its levels
            nested = "/".join(segment for segment in nested.split("/") if segment)
        return check_key(nested)

    def find(self, backend: Backend, name: str, suffix: str) -> str:
        """Return where `name` lies, and where it would go if there is none.

        Raises:
            KeyError: no namespace matches.
            InvalidName: as `nested`.
        """
        *earlier, last = self.levels(name)
        for level in earlier:
            nested = self.nested(name, level, suffix)
            info = backend.info(nested)
            if info.exists and not info.directory:  # a short key may also name a nesting folder
                return nested
        # There is one candidate left; whether it exists makes no difference.
        return self.nested(name, last, suffix)

    def folders(self) -> Iterator[str]:
        """Yield the deepest folder of every namespace's largest level, for making them ahead."""
        for namespace, levels in self.by_length:
            root, level = namespace.rstrip("/"), max(levels)
            for number in range(HEX_FOLDERS**level):
                digits = f"{number:0{level * CHARACTERS_PER_LEVEL}x}" if level else ""
                pairs = [digits[i : i + CHARACTERS_PER_LEVEL] for i in range(0, len(digits), 2)]
                folder = "/".join([root, *pairs] if root else pairs)
                if folder:
                    yield folder


def _check_levels(namespace: str, levels: Sequence[object]) -> None:
    if not levels or not all(isinstance(level, int) and level >= 0 for level in levels):
        raise ValueError(f"Invalid levels: {namespace}: {levels}")
