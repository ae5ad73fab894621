"""The papers' experiments: jobs, their runs, and the figures that were published."""
