"""What every command does with a host in the same way: refusals, commands and their answers, files, time, the lock."""
