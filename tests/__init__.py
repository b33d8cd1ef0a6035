"""The tests of the whole workspace; `servers` holds what starts real programs for them."""
