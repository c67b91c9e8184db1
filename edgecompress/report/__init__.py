"""Reports: made of what a conversion returns, and shown as tables, as a page and side by side."""
