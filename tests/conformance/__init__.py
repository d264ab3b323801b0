"""One suite of black-box ASGI cases for any server and every transport.

`cases_*.py` hold the cases: an ASGI application each, and what a client has to see. `registry.py`
names them, `application.py` is what a server under test runs, `peer.py` is the client (h11 and h2,
no code of framegate), `process.py` starts servers by a command template. pytest runs all of it
against framegate (`test_conformance.py`); `python -m conformance` runs it against anything and
writes the comparison.
"""
