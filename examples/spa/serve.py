"""Serve the single-page app in this directory, with the URL of the service filled in.

python examples/spa/serve.py --port 5173 --api http://localhost:8000
"""

import argparse
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent


class Page(SimpleHTTPRequestHandler):
    """A handler for the files of this directory. The page may load only from here and from the service."""

    api = ""

    def do_GET(self) -> None:
        """Send the page with the URL of the service filled in, or a file."""
        if self.path not in ("/", "/index.html"):
            super().do_GET()
            return
        page = (HERE / "index.html").read_text().replace("http://localhost:8000", self.api).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def end_headers(self) -> None:
        """Add the headers of every response."""
        sources = f"script-src 'self' {self.api}; connect-src {self.api}; style-src 'self'"
        self.send_header("Content-Security-Policy", f"default-src 'none'; {sources}; frame-ancestors 'none'")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main() -> None:
    """Serve until interrupted."""
    options = argparse.ArgumentParser(description="Serve the example app.")
    options.add_argument("--port", type=int, default=5173)
    options.add_argument("--api", default="http://localhost:8000")
    given = options.parse_args()
    Page.api = given.api
    server = ThreadingHTTPServer(("127.0.0.1", given.port), partial(Page, directory=str(HERE)))
    sys.stdout.write(f"The app: http://localhost:{server.server_port}\n")
    sys.stdout.flush()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
