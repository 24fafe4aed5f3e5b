"""Make `python -m sat_xception` the same as the `sat_xception` command."""

from sat_xception.cli import console

if __name__ == "__main__":
    console()
