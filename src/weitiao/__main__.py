"""`python -m weitiao`, for where the command is not on the path."""

from weitiao.cli import main

if __name__ == "__main__":
    main()
