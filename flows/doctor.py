"""Entry point `doctor` of MLproject: check this machine before a long run."""

from whisperbench.cli.doctor import main

if __name__ == "__main__":
    main()
