"""`python -m pipelines.cli`: the command line where no script is installed, as in an image."""

from pipelines.cli import main

if __name__ == "__main__":
    main()
