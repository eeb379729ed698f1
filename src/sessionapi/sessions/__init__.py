"""Sessions: start, refresh, list and end them, and keep all processes in step."""
