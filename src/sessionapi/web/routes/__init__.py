"""The routes, by what they are about: plain values in, one operation, a schema out."""
