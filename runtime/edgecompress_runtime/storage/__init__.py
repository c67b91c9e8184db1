"""Where this package keeps things on disk: private folders, and files in them that are known again."""
