"""What does a hello cost, counted and not timed? User instructions and system calls of a request.

Raw ASGI, 13 bytes, 16 connections. No noise of the machine touches the instructions; system calls
depend on how many requests are there when a server looks, and so a little on the speed of the load.
"""

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Limit, program

QUESTION = Comparison(
    name="hello_costs",
    title="Hello, counted: raw ASGI, 13 bytes, 16 connections",
    unit="User instructions, and system calls, of a request",
    contestants=(
        program("hello_costs", "framegate"),
        program("hello_costs", "granian"),
        program("hello_costs", "uvicorn"),
        # Its program is one of the tools.
        program("hello_costs", "hyper", "framegate", is_limit=True),
    ),
    cases=(
        Case("instructions", "instructions, hello", ("instructions",), ("instructions",)),
        Case("syscalls", "system calls, hello", ("syscalls",), ("syscalls",)),
        Case("echo", "instructions, 1 KiB of JSON there and back", ("echo",), ("echo",)),
        Case("order", "instructions, ten fields validated", ("order",), ("order",)),
    ),
    limits=(
        Limit(
            "user instructions of a request",
            ("framegate", "instructions", "instructions"),
            None,
            15_000.0,
            at_most=True,
        ),
        Limit(
            "system calls of a request",
            ("framegate", "syscalls", "syscalls"),
            None,
            2.6,
            at_most=True,
        ),
    ),
    rounds_max=2,
    has_tools=True,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
