"""Entry point `compare` of MLproject: rank runs, or check one against a baseline."""

from whisperbench.cli.compare import main

if __name__ == "__main__":
    main()
