"""Signing keys and the server secret."""
