"""The delivery engine: dispatch events, claim deliveries, send them as a stream, record what came of them.

Reading order: `dispatch`, `claim`, `outgoing`, `record`, `drain`. Every step leaves rows in a state from which another
process can go on: an event without position is dispatched again, a lease runs out, an outcome counts only while the
lease that sent it still stands.
"""
