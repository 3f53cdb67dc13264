"""A Dask cluster on Slurm that lives as long as this script: `python configs/clusters/slurm.py --jobs 16`.

Needs `pip install dask-jobqueue` beside tnet-geo, on a node that may submit jobs. It prints the address
for `tnet-geo pyramid build ... --scheduler ADDRESS`. Ctrl-C, or the end of its time, ends all jobs.
"""

from __future__ import annotations

import argparse
import time

from dask_jobqueue import SLURMCluster

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--jobs", type=int, default=4, help="jobs, each with `--processes` workers")
parser.add_argument("--processes", type=int, default=8, help="workers of one thread in each job")
parser.add_argument("--memory", default="16GiB", help="of one job: what its workers share")
parser.add_argument("--queue", help="Slurm's partition")
parser.add_argument("--account")
parser.add_argument("--walltime", default="12:00:00")

if __name__ == "__main__":
    options = parser.parse_args()
    cluster = SLURMCluster(
        cores=options.processes,  # one thread a worker: tasks use the libraries' own threads
        processes=options.processes,
        memory=options.memory,
        queue=options.queue,
        account=options.account,
        walltime=options.walltime,
        job_script_prologue=[
            "export OMP_NUM_THREADS=1 NO_ALBUMENTATIONS_UPDATE=1 MALLOC_ARENA_MAX=1",
            # Tasks are planned to fit; memory that is once taken stays resident.
            "export DASK_DISTRIBUTED__WORKER__MEMORY__TARGET=false",
            "export DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=false",
            "export DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=false",
            "export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=false",
        ],
    )
    cluster.scale(jobs=options.jobs)
    print(cluster.scheduler_address, flush=True)  # noqa: T201 - what the script is for
    try:
        while True:
            time.sleep(60)
    except KeyboardInterrupt:
        cluster.close()
