"""Load the server of the demo page: good, bad and hostile visitors."""
