"""Entry point `upload` of MLproject: log results that are on disk."""

from whisperbench.cli.upload import main

if __name__ == "__main__":
    main()
