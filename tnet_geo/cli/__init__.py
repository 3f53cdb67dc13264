"""The command line: one thin file per verb, and one way in which every command ends."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run `tnet-geo` with the arguments of this process, and end the process with its exit status."""
    # Here, not above: whoever imports one verb or one ending does not pay for all of them.
    from tnet_geo.cli.app import app
    from tnet_geo.cli.endings import end_process

    end_process(app, prog_name="tnet-geo")
