"""What operating systems differ in, as far as Python asks them: the same names, a module for each.

`system_linux.py` and `system_macos.py`; where the native halves have theirs says ARCHITECTURE.md.
They know nothing else of framegate. Type checkers read this file for the system that they are asked
about (`mypy --platform darwin`), so that what one of the modules lacks is found on any machine.
"""

import sys

if sys.platform == "darwin":
    from framegate.system_macos import *  # noqa: F403
else:
    from framegate.system_linux import *  # noqa: F403
