"""Long-running proofs and measurements, whose results the documentation shows."""
