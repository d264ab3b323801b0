"""nginx for one folder of static files, as Debian sets it up, with one worker and no log.

python nginx_static.py PORT FOLDER
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

port, folder = sys.argv[1:]
program = shutil.which("nginx") or "/usr/sbin/nginx"
if not os.path.exists(program):
    raise SystemExit("nginx was not found; on Debian: apt-get install nginx")

# sendfile and tcp_nopush are Debian's own settings. Without a master the process that is started is
# the one that serves, and runs as whoever started it.
SETTINGS = f"""
daemon off; master_process off; worker_processes 1; pid pid; error_log stderr error;
events {{ worker_connections 1024; }}
http {{
  sendfile on; tcp_nopush on; types_hash_max_size 2048; access_log off;
  keepalive_requests 1000000000; default_type application/octet-stream;
  client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d;
  scgi_temp_path e;
  server {{
    listen 127.0.0.1:{port};
    location /static/ {{ alias {folder}/; }}
  }}
}}
"""

# The driver removes its folder.
own = tempfile.mkdtemp(prefix="nginx-", dir=os.environ.get("FRAMEGATE_RUNTIME_DIR"))
Path(own, "nginx.conf").write_text(SETTINGS)
os.execv(program, [program, "-p", own, "-c", "nginx.conf", "-e", "stderr"])
