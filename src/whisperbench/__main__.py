"""`python -m whisperbench`: the command without an installed script."""

from whisperbench.cli import main

if __name__ == "__main__":
    main(prog_name="whisperbench")
