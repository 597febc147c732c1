"""What every command does with a host in the same way: refusals, commands, files, time, and the one lock."""
