"""The benchmark driver: builds what is measured, runs it in turns, and writes down what it cost.

The layers, each importing only what is above it:

- `spread`, `procfs`: medians; what the kernel says about processes and cores.
- `processes`, `scratch`: start, pin and end a process, and its folder; `environments`: the venvs;
  `machine`: what it ran on.
- `comparison`: programs that measure themselves, their words and their rounds; `transports`: those
  of the shared-memory questions.
- `question`: the words in which a benchmark of servers is described; `servers`: how each is
  started.
- `loadgen`, `measure`: one window of load; rounds of them.
- `tables`, `comparison_report`, `report`: tables and bars, from the JSON result alone.
- `__main__`: the command line.

A question itself is a file beside this package (`hello.py`, ...).
"""
