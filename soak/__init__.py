"""Rounds of real work with real kills: everything the platform promises about deliveries, put to the test.

`make soak`, or `python -m soak --rounds 3 --events 20000 --kind postgresql`. Events are recorded through the web server
of `manage.py up` while its web server, engine and database are killed with SIGKILL at random points. Reading order:
`servers`, `platform`, `recorder`, `endpoint`, `rounds`.
"""
