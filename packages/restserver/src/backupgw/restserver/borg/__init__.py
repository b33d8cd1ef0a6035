"""borgstore's REST protocol: one store, served to Borg 2 and other users of borgstore."""
