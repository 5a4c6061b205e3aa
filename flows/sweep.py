"""Entry point `sweep` of MLproject: measure several configurations."""

from whisperbench.cli.sweep import main

if __name__ == "__main__":
    main()
