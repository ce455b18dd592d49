"""The coordinator of a node: a state machine (state.py: event in, actions out) with its I/O at the edge (server.py)."""
