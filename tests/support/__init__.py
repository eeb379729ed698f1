"""Helpers of the tests, one module for each kind of thing."""
