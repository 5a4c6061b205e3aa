"""Command `python -m whisperbench`, which needs no installed script."""

from whisperbench.cli import main

if __name__ == "__main__":
    main(prog_name="whisperbench")
