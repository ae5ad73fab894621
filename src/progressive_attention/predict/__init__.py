"""Ask a trained network about a picture: here, in another program, or in a browser."""
