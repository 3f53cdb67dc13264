"""Every way in which tnet-geo says no, as one tree.

    TnetGeoError                exit 1: a defect, unless a branch below says better
    +-- UsageError              exit 2: the command line is wrong
    +-- SetAside                exit 3 of the run that survives it: one item has no result
    |   +-- SourceUnreadable      a raster cannot be opened or decoded
    |   +-- OverviewsMissing      a raster is no COG that can be read level by level
    |   +-- TileUnreadable        a stored tile is missing or damaged
    |   +-- SceneMissing          the archive has no sealed pyramid of a scene
    |   +-- SiteMismatch          a site's pixels are not what the bundle was trained on
    |   +-- SceneUnwritable       a scene's pyramid does not fit on the disk, or its bucket does not take it
    |   +-- WriteConflict         two builds were at one scene of a bucket with different bytes
    +-- Refused                 exit 4: nothing was written
    |   +-- TooLittleMemory       a task needs more memory than a worker may use
    |   +-- PlaceUnusable         a folder or bucket cannot be reached, or lets nobody in
    |   +-- InvalidManifest       a table of sites breaks the schema
    |   +-- InvalidDataSet        a folder or catalogue is not the data set that it should be
    |   +-- NoImages              a folder holds nothing to classify
    |   +-- InvalidRunFile        a run file has an unknown key or an impossible value
    |   +-- InvalidArchive        a folder is no archive, or one of another version
    |   +-- ArchiveMismatch       an archive was built for other settings
    |   +-- InvalidBundle         a folder is no bundle, or one of another version
    |   +-- InvalidCheckpoint     published weights cannot be read, or are those of another network
    |   +-- OutputExists          the output would overwrite something
    |   +-- InvalidResults        a folder holds no results
    |   +-- RuntimeUnusable       a runtime or precision is not to be had here
    |   +-- QueryRefused          a question that is not one SELECT, or that failed
    +-- Stopped                 exit 6: what a job needs is gone; what was published stays
    |   +-- PlaceLost             an archive or results folder no longer answers, or is full
    |   +-- ClusterLost           a scheduler is gone, or its workers cannot do the work
    +-- Incomplete              exit 1: answered + set aside is not what was selected
    +-- NoFinerLevel            a native tile has no children

One sentence each: what is wrong, in which item, what to do. Facts travel in `args`, so that errors
survive pickling between workers.
"""

from __future__ import annotations

__all__ = [
    "ArchiveMismatch",
    "ClusterLost",
    "Incomplete",
    "InvalidArchive",
    "InvalidBundle",
    "InvalidCheckpoint",
    "InvalidDataSet",
    "InvalidManifest",
    "InvalidResults",
    "InvalidRunFile",
    "NoFinerLevel",
    "NoImages",
    "OutputExists",
    "OverviewsMissing",
    "PlaceLost",
    "PlaceUnusable",
    "QueryRefused",
    "Refused",
    "RuntimeUnusable",
    "SceneMissing",
    "SceneUnwritable",
    "SetAside",
    "SiteMismatch",
    "SourceUnreadable",
    "Stopped",
    "TileUnreadable",
    "TnetGeoError",
    "TooLittleMemory",
    "UsageError",
    "WriteConflict",
]


class TnetGeoError(Exception):
    """Root of the tree; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(TnetGeoError):
    """The command line is wrong."""

    exit_code = 2


class SetAside(TnetGeoError):
    """One item has no result; the others go on, and the run ends with 3."""

    exit_code = 3


class SourceUnreadable(SetAside):
    """A raster cannot be opened, or some of its pixels cannot be decoded."""

    def __init__(self, source: str, cause: str) -> None:
        super().__init__(source, cause)
        self.source, self.cause = source, cause

    def __str__(self) -> str:
        return f"{self.source} cannot be read ({self.cause}): replace the file or drop its sites."


class OverviewsMissing(SetAside):
    """A raster is no Cloud-Optimised GeoTIFF whose overviews are the levels of a pyramid."""

    def __init__(self, source: str, what: str, remedy: str) -> None:
        super().__init__(source, what, remedy)
        self.source, self.what, self.remedy = source, what, remedy

    def __str__(self) -> str:
        return f"{self.source} {self.what}: {self.remedy}."


class TileUnreadable(SetAside):
    """A tile's chunks are missing or damaged; it is never answered with zeros."""

    REPAIR = "mend the archive with `tnet-geo pyramid repair`"

    def __init__(self, scene_id: str, tile: str, cause: str, remedy: str = REPAIR) -> None:
        super().__init__(scene_id, tile, cause, remedy)
        self.scene_id, self.tile, self.cause, self.remedy = scene_id, tile, cause, remedy

    def __str__(self) -> str:
        return f"Scene {self.scene_id}, {self.tile} cannot be read ({self.cause}): {self.remedy}."


class SceneMissing(SetAside):
    """The archive holds no sealed pyramid of this scene, or no COG of it."""

    BUILD = "build it with `tnet-geo pyramid build`"

    def __init__(
        self, scene_id: str, archive: str, what: str = "no sealed pyramid", remedy: str = BUILD
    ) -> None:
        super().__init__(scene_id, archive, what, remedy)
        self.scene_id, self.archive, self.what, self.remedy = scene_id, archive, what, remedy

    def __str__(self) -> str:
        return f"Archive {self.archive} has {self.what} of scene {self.scene_id}: {self.remedy}."


class SiteMismatch(SetAside):
    """The pixels of a site contradict what a bundle expects, or its window leaves the scene."""

    def __init__(self, site_id: str, has: str, wants: str) -> None:
        super().__init__(site_id, has, wants)
        self.site_id, self.has, self.wants = site_id, has, wants

    def __str__(self) -> str:
        return f"Site {self.site_id} has {self.has}, but {self.wants}."


class SceneUnwritable(SetAside):
    """A scene's pyramid cannot be written: the disk is full, or the bucket does not take it."""

    def __init__(self, scene_id: str, place: str, cause: str) -> None:
        super().__init__(scene_id, place, cause)
        self.scene_id, self.place, self.cause = scene_id, place, cause

    def __str__(self) -> str:
        return (
            f"Scene {self.scene_id} cannot be written to {self.place} ({self.cause}): make room there, and "
            f"run `tnet-geo pyramid build` again."
        )


class WriteConflict(SetAside):
    """Another build changed a scene of an object store while this one wrote it; it is not sealed."""

    def __init__(self, scene_id: str, place: str, cause: str) -> None:
        super().__init__(scene_id, place, cause)
        self.scene_id, self.place, self.cause = scene_id, place, cause

    def __str__(self) -> str:
        return (
            f"Scene {self.scene_id} below {self.place} was changed by another build while this one wrote "
            f"it ({self.cause}): let one build run at a time, and run `tnet-geo pyramid build` again."
        )


class Refused(TnetGeoError):
    """Input, archive, bundle or machine does not fit; nothing was written."""

    exit_code = 4


class PlaceUnusable(Refused):
    """A folder or bucket cannot be reached, does not exist, or lets nobody in."""

    def __init__(self, place: str, what: str, remedy: str) -> None:
        super().__init__(place, what, remedy)
        self.place, self.what, self.remedy = place, what, remedy

    def __str__(self) -> str:
        return f"{self.place} {self.what}: {self.remedy}."


class TooLittleMemory(Refused):
    """A task needs more memory than one worker may use."""

    def __init__(self, item: str, needs: str, has: str, remedy: str) -> None:
        super().__init__(item, needs, has, remedy)
        self.item, self.needs, self.has, self.remedy = item, needs, has, remedy

    def __str__(self) -> str:
        return f"{self.item} needs {self.needs} in one worker, which has {self.has}: {self.remedy}."


class InvalidManifest(Refused):
    """A table of sites breaks the schema."""

    def __init__(self, manifest: str, what: str, remedy: str) -> None:
        super().__init__(manifest, what, remedy)
        self.manifest, self.what, self.remedy = manifest, what, remedy

    def __str__(self) -> str:
        return f"Manifest {self.manifest} {self.what}: {self.remedy}."


class InvalidDataSet(Refused):
    """A folder or catalogue is not the data set that it should be, or lacks what is asked for."""

    def __init__(self, place: str, what: str, remedy: str) -> None:
        super().__init__(place, what, remedy)
        self.place, self.what, self.remedy = place, what, remedy

    def __str__(self) -> str:
        return f"{self.place} {self.what}: {self.remedy}."


class NoImages(Refused):
    """A folder holds no image in a folder that could name its class."""

    def __init__(self, root: str, suffixes: str) -> None:
        super().__init__(root, suffixes)
        self.root, self.suffixes = root, suffixes

    def __str__(self) -> str:
        return f"{self.root} holds no image: put {self.suffixes} files into one folder per class below it."


class InvalidRunFile(Refused):
    """A run file has an unknown key, or a value that cannot be."""

    def __init__(self, path: str, what: str, remedy: str) -> None:
        super().__init__(path, what, remedy)
        self.path, self.what, self.remedy = path, what, remedy

    def __str__(self) -> str:
        return f"Run file {self.path} {self.what}: {self.remedy}."


class InvalidArchive(Refused):
    """A folder is no archive, or one of a format that this version does not read."""

    def __init__(self, archive: str, what: str) -> None:
        super().__init__(archive, what)
        self.archive, self.what = archive, what

    def __str__(self) -> str:
        return f"{self.archive} {self.what}: build an archive with `tnet-geo pyramid build`."


class ArchiveMismatch(Refused):
    """An archive was built with other settings than those asked for."""

    def __init__(self, archive: str, has: str, wants: str) -> None:
        super().__init__(archive, has, wants)
        self.archive, self.has, self.wants = archive, has, wants

    def __str__(self) -> str:
        return (
            f"Archive {self.archive} was built with {self.has}, but {self.wants} is asked for: build "
            f"another archive in a new folder, or ask for what this one has."
        )


class InvalidBundle(Refused):
    """A folder is no bundle, is damaged, or has a format that this version does not read."""

    TRAIN = "train one with `tnet-geo train`"

    def __init__(self, bundle: str, what: str, remedy: str = TRAIN) -> None:
        super().__init__(bundle, what, remedy)
        self.bundle, self.what, self.remedy = bundle, what, remedy

    def __str__(self) -> str:
        return f"Bundle {self.bundle} {self.what}: {self.remedy}."


class InvalidCheckpoint(Refused):
    """Weights of the published code cannot be read, or are those of another network."""

    def __init__(self, checkpoint: str, what: str, remedy: str) -> None:
        super().__init__(checkpoint, what, remedy)
        self.checkpoint, self.what, self.remedy = checkpoint, what, remedy

    def __str__(self) -> str:
        return f"Checkpoint {self.checkpoint} {self.what}: {self.remedy}."


class OutputExists(Refused):
    """The output would overwrite something that this command did not make."""

    def __init__(self, path: str, remedy: str = "name another output, or remove it first") -> None:
        super().__init__(path, remedy)
        self.path, self.remedy = path, remedy

    def __str__(self) -> str:
        return f"{self.path} exists already: {self.remedy}."


class InvalidResults(Refused):
    """A folder holds no finished results."""

    def __init__(self, results: str, what: str) -> None:
        super().__init__(results, what)
        self.results, self.what = results, what

    def __str__(self) -> str:
        return f"{self.results} {self.what}: run `tnet-geo classify ... -o {self.results}`."


class RuntimeUnusable(Refused):
    """A runtime, or a precision of it, cannot compute this network on this machine."""

    def __init__(self, runtime: str, cause: str) -> None:
        super().__init__(runtime, cause)
        self.runtime, self.cause = runtime, cause

    def __str__(self) -> str:
        return f"Runtime {self.runtime} cannot be used here ({self.cause}): ask for another with --runtime."


class QueryRefused(Refused):
    """The question is not one SELECT over the results, or the database refused it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what, self.remedy = what, remedy

    def __str__(self) -> str:
        return f"The query {self.what}: {self.remedy}."


class Stopped(TnetGeoError):
    """A job cannot go on where it is; what it has published stays, the same command goes on from there."""

    exit_code = 6


class PlaceLost(Stopped):
    """An archive or a folder of results no longer answers, or takes nothing any more."""

    def __init__(self, place: str, cause: str) -> None:
        super().__init__(place, cause)
        self.place, self.cause = place, cause

    def __str__(self) -> str:
        what = f"{self.place} was lost on the way ({self.cause})"
        return f"{what}: bring it back and run the same command, which goes on from what is published."


class ClusterLost(Stopped):
    """A scheduler went away and did not come back, or its workers cannot do what they are asked for."""

    def __init__(self, cluster: str, cause: str) -> None:
        super().__init__(cluster, cause)
        self.cluster, self.cause = cluster, cause

    def __str__(self) -> str:
        what = f"{self.cluster} cannot go on ({self.cause})"
        return f"{what}: mend it and run the same command, which goes on from what is published."


class Incomplete(TnetGeoError):
    """Answered and set aside do not add up to what was selected: the run is red."""

    def __init__(self, run: str, selected: int, answered: int, set_aside: int) -> None:
        super().__init__(run, selected, answered, set_aside)
        self.run, self.selected = run, selected
        self.answered, self.set_aside = answered, set_aside

    def __str__(self) -> str:
        return (
            f"Run {self.run} selected {self.selected} items, but has {self.answered} results and "
            f"{self.set_aside} set aside: run the same command again, and report it if that remains."
        )


class NoFinerLevel(TnetGeoError):
    """A native tile has no children."""

    def __init__(self, level: int, row: int, col: int) -> None:
        super().__init__(level, row, col)
        self.tile = (level, row, col)

    def __str__(self) -> str:
        level, row, col = self.tile
        return f"Tile (level {level}, row {row}, column {col}) is native and has no children."
