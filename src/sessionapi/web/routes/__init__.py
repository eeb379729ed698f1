"""The routes by subject. Each takes plain values, calls one operation and returns a schema."""
