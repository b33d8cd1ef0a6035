"""A backend's module whose library is not installed."""

import no_such_library_at_all.deeper  # type: ignore[import-not-found]

from_url = no_such_library_at_all.deeper.from_url
