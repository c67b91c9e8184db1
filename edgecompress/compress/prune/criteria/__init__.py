"""Criteria that score weights or channels: one in each file, with the file's name. See `compress.prune.criterion`."""
