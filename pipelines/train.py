"""What a scheduler calls: `python -m pipelines.train RUN.toml`. Killed and called again, it goes on."""

from pathlib import Path

from tnet_geo import evaluate
from tnet_geo import train as train_run
from tnet_geo.cli.endings import call


def train(run_file: Path) -> int:
    """Train what the run file says, then compare it with its rivals."""
    report = train_run(run_file)
    evaluate(report.run_dir, out=report.run_dir / "evaluation.json")
    return 0


if __name__ == "__main__":
    call(train)
