"""What does an idle connection of HTTP hold, and an idle WebSocket beyond that?

5,000 connections of each kind; each WebSocket has used deflate before it fell silent. What the
application has of each is in it: scope, coroutine, task.
"""

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Contestant, Limit


def server(name: str) -> Contestant:
    """One that `apps/idle_connections.py` knows how to start."""
    return Contestant(name, name, ("{bin}/python", "{apps}/idle_connections.py", name))


QUESTION = Comparison(
    name="websocket_idle",
    title="Idle connections, 5,000 at a time: memory of each",
    unit="Bytes of PSS per connection",
    contestants=(server("framegate"), server("uvicorn")),
    cases=(
        Case("http", "HTTP", (), ("http",)),
        Case("websocket", "WebSocket, deflate in use", (), ("websocket",)),
        Case("beyond", "difference", (), ("beyond",)),
    ),
    limits=(
        Limit(
            "bytes of an idle connection of HTTP",
            ("framegate", "http", "http"),
            None,
            4096.0,
            at_most=True,
        ),
        Limit(
            "bytes of an idle WebSocket beyond those of HTTP",
            ("framegate", "beyond", "beyond"),
            None,
            4096.0,
            at_most=True,
        ),
    ),
    rounds_max=2,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
