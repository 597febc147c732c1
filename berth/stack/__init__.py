"""What a release is made of: its compose file, as compose resolves it, and the labels of its services."""
