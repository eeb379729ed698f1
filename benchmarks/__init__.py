"""What is measured, against whom, and the charts: run by `make bench`, told in README.md beside this file."""
