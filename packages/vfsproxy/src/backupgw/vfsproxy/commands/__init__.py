"""The commands of `backupgw vfs`, a module for each subject."""
