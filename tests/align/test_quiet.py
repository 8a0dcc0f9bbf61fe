"""Within, the libraries are silent; afterwards their settings are what they were."""

from __future__ import annotations

import logging
import os

from mergetool.align.quiet import quiet


def test_settings_come_back(monkeypatch) -> None:
    import datasets
    import transformers

    monkeypatch.setenv("TQDM_DISABLE", "0")
    transformers.logging.set_verbosity_warning()
    datasets.enable_progress_bars()
    with quiet():
        assert transformers.logging.get_verbosity() == transformers.logging.ERROR
        assert not datasets.utils.logging.is_progress_bar_enabled()
        assert os.environ["TQDM_DISABLE"] == "1"
        assert not logging.getLogger("trl.trainer.kto_trainer").isEnabledFor(logging.WARNING)
    assert transformers.logging.get_verbosity() == transformers.logging.WARNING
    assert datasets.utils.logging.is_progress_bar_enabled()
    assert os.environ["TQDM_DISABLE"] == "0"
    assert logging.getLogger("trl.trainer.kto_trainer").isEnabledFor(logging.WARNING)
