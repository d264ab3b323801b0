"""The Autobahn WebSocket test suite against a real `platform serve`, over HTTP and in TLS.

`suite.py` starts the fuzzing client and judges its findings, `application.py` is what it talks to.
The other way round its fuzzing server judges `framegate.client` (`players.py`).
pytest runs a quick set (`test_autobahn.py`); `python -m autobahn_suite` runs all 517 cases over
both transports.
"""
