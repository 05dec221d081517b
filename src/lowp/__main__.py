"""Run the command line: `python -m lowp`."""

from lowp.cli import main

if __name__ == "__main__":
    main()
