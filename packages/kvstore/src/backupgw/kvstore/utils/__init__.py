"""borgstore's two modules of pure functions, under borgstore's names."""
