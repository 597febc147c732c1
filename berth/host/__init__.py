"""What all commands share: errors, subprocesses and their output, files, time, and the lock."""
