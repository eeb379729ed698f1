"""Programs that run for long or measure, and write what the documentation shows."""
