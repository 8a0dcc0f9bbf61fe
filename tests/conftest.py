"""Settings for the whole suite."""

from __future__ import annotations

import os

from hypothesis import settings

# No test may reach for the network, and no test is judged by the clock.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
settings.register_profile("mergetool", deadline=None)
settings.load_profile("mergetool")
