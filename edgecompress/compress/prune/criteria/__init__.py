"""What scores weights or channels: one criterion a file, named as the file. See `compress.prune.criterion`."""
