"""The measures: one module for each one or two rows of the table, each with `measure(plan, results)`."""
