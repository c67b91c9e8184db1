"""What a run leaves behind: report.json, and the tables that show it."""
