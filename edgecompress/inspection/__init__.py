"""Facts about a model, a .pack file or this machine, without converting anything."""
