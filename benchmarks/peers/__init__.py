"""The apps of the peers, each run in an environment of its own; nothing of this project imports them."""
