"""The benchmark driver: builds what is measured, runs it in turns, and writes down what it cost.

The layers, each importing only what is above it:

- `spread`, `procfs`: medians; what the kernel says about processes and cores.
- `processes`: start, pin and end a process; `environments`: the venvs; `machine`: what it ran on.
- `question`: the words in which a benchmark is described; `servers`: how each server is started.
- `loadgen`, `measure`: one window of load; rounds of them.
- `report`: tables and bars, from the JSON result alone; `__main__`: the command line.

A question itself is a file beside this package (`hello.py`, ...).
"""
