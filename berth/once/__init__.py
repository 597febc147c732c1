"""Commands and shells in containers of their own, beside the live release."""
