"""The places: one module each, all of them `base.Backend`s."""
