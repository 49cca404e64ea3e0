"""Healthy: the model answers. Exit status 0 then, else 1.

    python3 health.py [--end] [HOST:PORT]

Triton calls itself ready even when a Python process of its model has died, and does not start it again (triton-inference-server/server issue 8604).
With --end such a server, which is ready and yet does not answer, is asked to stop (process 1 of the container), so that Docker starts it anew.
"""
import http.client
import json
import os
import signal
import sys

BODY = {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": ["Is anybody there?"]}]}


def status(url: str, path: str, body: dict | None = None) -> int:
    link = http.client.HTTPConnection(url, timeout=4)
    try:
        link.request("POST" if body else "GET", path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        return link.getresponse().status
    except (OSError, http.client.HTTPException): return 0
    finally: link.close()


def healthy(url: str) -> bool | None:
    "None: not ready (yet), which is no reason to stop it. A full queue (503) is an answer too."
    if status(url, "/v2/health/ready") != 200: return None
    return status(url, "/v2/models/bert_ner/infer", BODY) in (200, 503)


if __name__ == "__main__":
    urls = [a for a in sys.argv[1:] if not a.startswith("--")]
    well = healthy(urls[0] if urls else "localhost:8000")
    if well is False and "--end" in sys.argv: os.kill(1, signal.SIGTERM)
    sys.exit(0 if well else 1)
