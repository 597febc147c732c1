"""What all commands share: errors, subprocesses, files, time, and the lock."""
