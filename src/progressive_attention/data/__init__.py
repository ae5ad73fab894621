"""Every data set as questions about images: the synthetic sets, and one way to load any of them."""
