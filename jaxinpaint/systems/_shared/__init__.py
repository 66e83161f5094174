"""What the recipes of several systems have in common."""
