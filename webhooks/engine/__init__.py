"""The delivery engine: dispatch events, read what is due, send it as a stream, record what came of it.

Reading order: `dispatch`, `leases`, `due`, `outgoing`, `record`, `drain`. Every step leaves rows in a state from which
another process can go on: an event without position is dispatched again, a lease runs out, a delivery stays pending
until an outcome is written.
"""
