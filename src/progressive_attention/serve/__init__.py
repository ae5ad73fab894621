"""The demo page (`pan serve`): draw a scene or drop a picture, ask one or two networks, see where they looked."""
