"""Write `report.html` of a run anew, from the files in its folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from reid.errors import run_command
from reid.report.training import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the OUTPUT_DIR of a run")
    print(f"report: {write_report(parser.parse_args().run)}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
