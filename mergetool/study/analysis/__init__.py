"""From lines of results to an answer: groups, front, choice, hypervolume."""
