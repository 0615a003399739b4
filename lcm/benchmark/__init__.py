"""Speed and scale, measured against everything a user could pick instead."""
