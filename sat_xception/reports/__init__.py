"""HTML pages, charts and tables that people read."""
