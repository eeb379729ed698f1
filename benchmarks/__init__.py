"""The benchmarks, the programs that they compare the service with, and the charts. See README.md here."""
