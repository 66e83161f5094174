"""Systems as files for other programs: `function` is what is exported, the rest are formats."""
