"""Installs the wheel beside it and waits for a picture of the demo: runs inside .ci/in-chroot.

Prints the seconds from the start of pip to the first JPEG, and of each part. Standard library only.
"""

import re
import signal
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path

PATIENCE_S = 60.0
(wheel,) = Path(__file__).parent.glob("*.whl")
venv.create("/venv", with_pip=True)

began = time.monotonic()
pip = ["/venv/bin/pip", "install", "--quiet", "--no-index", str(wheel)]
subprocess.run(pip, check=True)
installed = time.monotonic()
command = ["/venv/bin/platform", "serve", "--port", "0"]
with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
    try:
        said = ""
        assert demo.stdout is not None
        for line in demo.stdout:
            said += line
            if found := re.search(r"curl -s -o camera.jpg '([^']+)'", line):
                break
        else:
            sys.exit(f"platform serve ended:\n{said}")
        picture = b""
        while not picture.startswith(b"\xff\xd8"):
            try:
                with urllib.request.urlopen(found[1], timeout=5) as reply:
                    picture = reply.read()
            except OSError as error:
                if time.monotonic() - installed > PATIENCE_S:
                    sys.exit(f"no picture: {error}\n{said}")
                time.sleep(0.05)
        shown = time.monotonic()
    finally:
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
if demo.returncode != 0:
    sys.exit(f"platform serve ended with {demo.returncode}")
subprocess.run(["/venv/bin/platform", "doctor"], check=True, stdout=subprocess.DEVNULL)
print(
    f"{shown - began:.2f} s to the first picture of {len(picture)} bytes: "
    f"{installed - began:.2f} s to install, {shown - installed:.2f} s to serve; "
    f"Python {sys.version.split()[0]}"
)
