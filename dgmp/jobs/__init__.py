"""Commands as Gs: the launcher (`dgmp each`), and the queue that stays (`dgmp up`).

A command is a G that waits on its pidfd in netpoll, a slot is a P, and schedule() takes the next command when a P is idle.
No node is booted for it: a command needs neither Ms nor a segment.

The launcher is one light process: launcher.py and what it imports.  The queue is two: daemon.py knows all jobs and keeps
them in a store (store.py), keeper.py is the parent of the commands and outlives the daemon.  Clients (client.py) talk to the
daemon by messages (protocol.py, docs/protocol.md).  zmq, msgpack and sqlite3 are imported in these alone.
"""
