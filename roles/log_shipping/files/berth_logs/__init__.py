"""Every line of the journal to one log server; __main__.py says how. The standard library alone."""
