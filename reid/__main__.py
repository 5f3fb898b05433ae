"""`python -m reid`, the same as `svdnet`."""

from reid.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
