"""What can be said of a model, a pack or this machine without converting anything."""
