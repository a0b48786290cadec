"""Sample data and a receiver for `manage.py demo`."""
