"""What the platform can do on this machine, in numbers. `make bench` runs all of it."""
