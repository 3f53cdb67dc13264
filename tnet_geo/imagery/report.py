"""What came of making a manifest: what is in it, and what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tnet_geo.imagery.manifest import SPLITS, Manifest

__all__ = ["LeftOut", "ManifestReport", "report_of"]

SHOWN = 10


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One thing that could not become a site."""

    item: str
    reason: str


@dataclass(frozen=True)
class ManifestReport:
    """Counts of a new manifest.

    sites     number of sites
    scenes    number of scenes that they lie in
    splits    sites by split, in the order of SPLITS, then those without
    classes   sites by label, in the published order of the data set where there is one
    by_rule   what a rule leaves out, by the rule's name
    lacking   sites that are in it although something is not known of them, by what
    missing   what should be in it but cannot, by reason
    left_out  the same, one by one
    """

    manifest: str
    sites: int
    scenes: int
    splits: Mapping[str, int]
    classes: Mapping[str, int]
    by_rule: Mapping[str, int] = field(default_factory=dict)
    lacking: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()

    @property
    def exit_code(self) -> int:
        """3 where something is missing, as for items set aside."""
        return 3 if self.left_out else 0

    def lines(self) -> list[str]:
        """For people: what is in it, then what is not; of many things missing the first few."""
        lines = [f"{self.manifest}: {self.sites} sites in {self.scenes} scenes, {len(self.classes)} classes"]
        lines.append(_counts(self.splits))
        if self.by_rule:
            lines.append(f"left out by rule: {_counts(self.by_rule)}")
        if self.lacking:
            lines.append(f"kept without: {_counts(self.lacking)}")
        if self.missing:
            lines.append(f"missing: {_counts(self.missing)}")
        lines += [f"  {left.item}: {left.reason}" for left in self.left_out[:SHOWN]]
        if len(self.left_out) > SHOWN:
            lines.append(f"  and {len(self.left_out) - SHOWN} more: --json names all")
        return lines


def report_of(
    manifest: Manifest,
    *,
    order: Sequence[str] = (),
    by_rule: Mapping[str, int] | None = None,
    lacking: Mapping[str, int] | None = None,
    left_out: Iterable[LeftOut] = (),
) -> ManifestReport:
    """The report of a manifest; `order` is the published order of classes."""
    labels = Counter(site.label for site in manifest.sites if site.label is not None)
    splits = Counter(site.split or "no split" for site in manifest.sites)
    known = {name: place for place, name in enumerate(order)}
    left = tuple(left_out)
    return ManifestReport(
        manifest=manifest.path,
        sites=len(manifest),
        scenes=len(manifest.scenes()),
        splits={name: splits[name] for name in (*SPLITS, "no split") if splits[name]},
        classes={name: labels[name] for name in sorted(labels, key=lambda n: (known.get(n, len(known)), n))},
        by_rule=_sorted(by_rule or {}),
        lacking=_sorted(lacking or {}),
        missing=_sorted(Counter(one.reason for one in left)),
        left_out=left,
    )


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in sorted(counts.items()) if count}


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
