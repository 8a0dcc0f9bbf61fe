"""Programs for the people who work on mergetool; not part of the wheel."""
