"""What a scheduler calls: `python -m pipelines.train RUN.toml`. Killed and called again, it goes on."""

from pathlib import Path

from tnet_geo import train as train_run
from tnet_geo.cli.endings import call


def train(run_file: Path) -> int:
    """Train what the run file says; a finished run is left alone."""
    return train_run(run_file).exit_code


if __name__ == "__main__":
    call(train)
