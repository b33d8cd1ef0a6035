"""Files in a folder: their names, moving their bytes in and out, listing and changing them.

Everything here stands on a `Backend` alone, the folder's own: what is around it (quota, rights) is
the caller's.
"""
