"""The names that borgstore's `constants` has, with its values."""

from .names import MAX_KEY_LENGTH

ROOTNS = ""
"""What `Store.list` takes to list everything."""

TMP_SUFFIX = ".tmp"
"""Keys never end like this: borgstore's temporary files do."""

DEL_SUFFIX = ".del"
"""Ending of a soft-deleted item's name in the backend."""

HID_SUFFIX = ".hid"
"""Keys never end like this: borgstore's own hidden files do."""

MAX_NAME_LENGTH = MAX_KEY_LENGTH
"""Characters in a key, its nesting and its suffix included."""
