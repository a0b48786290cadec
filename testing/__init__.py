"""Runs the checks and the tests; shared parts of the tests."""
