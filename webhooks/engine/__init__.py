"""The delivery engine: dispatch events, read what is due, send it as a stream, record what came of it.

Reading order: `dispatch`, `leases`, `due`, `outgoing`, `record`, `drain`. Every step leaves rows in a state from which
another process can go on: an event stays undispatched, a lease runs out, a delivery stays outstanding until an outcome
is written.
"""
