"""The demo page of ``pan serve``: what it shows (pure functions), its layout, and the server with its limits."""
