"""`python -m clprune` is the command `clprune`."""

from clprune.cli import main

if __name__ == "__main__":
    main()
