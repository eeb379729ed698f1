"""One module for each row or two of the table: each has `measure(plan, results)`."""
