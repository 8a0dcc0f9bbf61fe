"""Everything that speaks to the Hub.

requests.py     how it is asked: patience, and refusals as one line
commits.py      which commit a name stands for in this run
repository.py   a repository as a place that checkpoints are read from, headers alone
model_reference.py, references.py   `MODEL[+ADAPTER]`, each a directory or a Hub id -> headers, directories
fetch.py        files into the standard cache; stream.py: one shard at a time
push.py         a finished checkpoint to the Hub; card.py: its model card
"""

from __future__ import annotations

from mergetool.hub.commits import Pinned, RemoteFile, forget, hold, pin, pins
from mergetool.hub.requests import TIMEOUT, http_error, offline, patiently, refusals

__all__ = ["TIMEOUT", "Pinned", "RemoteFile", "forget", "hold", "http_error", "offline", "patiently", "pin", "pins", "refusals"]
