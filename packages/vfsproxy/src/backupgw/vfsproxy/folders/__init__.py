"""Folders, who they belong to and who they are shared with: the records and what keeps them."""
