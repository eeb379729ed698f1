"""The HTTP API and the pages. The packages below contain no requests, responses, status codes or cookies."""
