"""Find things in satellite imagery with transfer learning: the library behind every step of the pipelines."""

__all__ = ["__version__"]

__version__ = "0.1.0"
