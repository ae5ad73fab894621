"""What a trained network answers and where it looks, over a data set: rows, then a summary."""
