"""HTTP: the only part that knows requests, responses, statuses and cookies."""
