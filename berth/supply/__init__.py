"""Where images come from: their identity, signed statements about them, and what is in them."""
