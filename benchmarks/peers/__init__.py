"""The apps of the peers. Each runs in a separate environment, and none of them imports this project."""
