"""Label picks in the browser: a local server and its page."""
