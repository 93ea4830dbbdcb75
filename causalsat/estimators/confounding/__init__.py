"""Effects under confounding that images show."""
