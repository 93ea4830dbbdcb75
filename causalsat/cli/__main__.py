"""``python -m causalsat.cli``: the command line where the script is not on the path."""

from causalsat.cli.commands import main

if __name__ == "__main__":
    main()
