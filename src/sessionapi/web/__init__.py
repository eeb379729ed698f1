"""The HTTP API and the pages. Lower layers contain no requests, responses, statuses or cookies."""
