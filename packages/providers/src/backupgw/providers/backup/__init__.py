"""`backupgw backup`: what a home server backs up, where to, when, and how it comes back."""
