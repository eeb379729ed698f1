"""Access tokens, refresh tokens and service tokens."""
