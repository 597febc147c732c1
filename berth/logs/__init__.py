"""Every line of the journal to one log server; command.py says how."""
