"""Log shipping: every line of the journal, to one log server. See command.py."""
