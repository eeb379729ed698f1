"""Limits on attempts: what they are, and how they are counted."""
