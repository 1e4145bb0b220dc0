"""`python -m pickeropt`."""

from pickeropt.cli import main

if __name__ == "__main__":
    main()
