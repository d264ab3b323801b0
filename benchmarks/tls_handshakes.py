"""What does a TLS handshake cost the server?

TLS 1.3 with X25519 and a certificate of ECDSA P-256, one connection with one request after another,
with whole handshakes or resumed by a ticket. The client is Python's `ssl`.
"""

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Limit, program


def _against(name: str) -> Limit:
    return Limit(
        f"CPU of a whole handshake: framegate / {name}",
        ("framegate", "whole", "cpu_us"),
        (name, "whole", "cpu_us"),
        1.0,
        at_most=True,
    )


QUESTION = Comparison(
    name="tls_handshakes",
    title="TLS handshakes, one after another",
    unit="Microseconds of the server's CPU time per connection",
    contestants=tuple(
        program("tls_handshakes", name) for name in ("framegate", "granian", "uvicorn")
    ),
    cases=(
        Case("whole", "whole", ("whole",), ("cpu_us",)),
        Case("resumed", "resumed", ("resumed",), ("cpu_us",)),
    ),
    has_tools=True,
    limits=(_against("granian"), _against("uvicorn")),
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
