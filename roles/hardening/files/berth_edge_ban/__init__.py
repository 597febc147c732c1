"""Who abuses the edge is found in its access log, counted by network, and shut out."""
