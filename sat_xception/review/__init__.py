"""Review of candidates: the page, its tiles, the record of decisions, and the server."""
