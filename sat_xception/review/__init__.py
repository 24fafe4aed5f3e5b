"""People look at candidates and say yes or no: the page, its tiles, the record of what they said, and its server."""
