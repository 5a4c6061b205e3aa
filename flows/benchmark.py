"""Entry point `main` of MLproject: measure one configuration."""

from whisperbench.cli.benchmark import main

if __name__ == "__main__":
    main()
