"""What a sync has to do: a gallery as it is on disk, compared with what the index holds of it."""

import json
from dataclasses import dataclass, field

from indexer.changes import Attributes, Skip
from indexer.lookup import Known, KnownSkip
from indexer.store import IndexStore, Source
from retrieval.errors import GalleryError, RemovalsRefused
from retrieval.images import DEFAULT_LIMITS, DecodeLimits, may_pass_now
from retrieval.records import ImageRecord, Listing, Skipped, box_text

RACY_MTIME_NS = 2_000_000_000  # coarsest modification time in use (FAT); a younger file may change unseen
LARGEST_REMOVAL = 0.2  # share of a source that may vanish without a question
_UNKNOWN = -1  # size and time of what is set aside for its name, not for its bytes


@dataclass(slots=True)
class Plan:
    """What there is to do.

    Attributes:
        to_embed: new and changed pictures.
        before: what the index holds under their keys, where it holds something.
        attributes: keys whose attributes alone changed.
        described: key -> id of the pictures that these are of.
        vanished: key -> id of pictures that are no longer in the gallery.
        set_aside: pictures that need no look: unusable by name, or known not to decode.
        stale: keys among them that keep their former vector.
        skips, unskips: what to remember, or forget, about pictures that do not decode.
        unchanged: number of pictures.
        held: number of pictures that the index holds of this gallery.
    """

    to_embed: list[ImageRecord] = field(default_factory=list)
    before: dict[str, Known] = field(default_factory=dict)
    attributes: dict[str, Attributes] = field(default_factory=dict)
    described: dict[str, int] = field(default_factory=dict)
    vanished: dict[str, int] = field(default_factory=dict)
    set_aside: list[Skipped] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    unskips: list[tuple[int, str]] = field(default_factory=list)
    unchanged: int = 0
    held: int = 0


def make_plan(store: IndexStore, source: Source, listing: Listing, limits: DecodeLimits = DEFAULT_LIMITS) -> Plan:
    """Compare a gallery with what the index holds of it.

    Args:
        limits: of this run; a picture that former ones kept out is looked at again.
    """
    known = store.known_pictures(source)
    remembered = store.known_skips(source)
    skips = {key: skip for key, skip in remembered.items() if not may_pass_now(skip.reason, limits)}
    plan = Plan(held=len(known))
    unknown: list[ImageRecord] = []
    has_attributes = listing.kind == "manifest"
    for record in listing.records:
        before = known.pop(record.key, None)
        if before is None:
            unknown.append(record)
        elif _looks_unchanged(record, before):
            _plan_unchanged(plan, record, before, has_attributes)
        else:
            plan.before[record.key] = before
            _plan_look(plan, record, skips.get(record.key))
    _plan_unknown(plan, unknown, skips, store.owners(record.key for record in unknown), source)
    _plan_unusable(plan, listing.skipped, known, skips, source)
    plan.set_aside += listing.unlisted
    unlisted = tuple(folder.key for folder in listing.unlisted)
    plan.vanished = {key: gone.id for key, gone in known.items() if not key.startswith(unlisted)}
    plan.unchanged += len(known) - len(plan.vanished)
    if remembered:
        listed = {record.key for record in listing.records}.union(skip.key for skip in listing.skipped)
        plan.unskips += [(source.id, key) for key in remembered if key not in listed and not key.startswith(unlisted)]
    return plan


def _looks_unchanged(record: ImageRecord, before: Known) -> bool:
    return (
        record.size_bytes == before.size_bytes
        and record.mtime_ns == before.mtime_ns
        and before.mtime_ns < before.scanned_ns - RACY_MTIME_NS
        and (before.path is None or before.path == record.path)
        and box_text(record.box) == before.box
    )


def _plan_unchanged(plan: Plan, record: ImageRecord, before: Known, has_attributes: bool) -> None:
    if has_attributes and attributes_of(record) != attributes_before(before):
        plan.attributes[record.key] = attributes_of(record)
        plan.described[record.key] = before.id
    else:
        plan.unchanged += 1


def _plan_look(plan: Plan, record: ImageRecord, skip: KnownSkip | None) -> None:
    if skip is not None and (skip.size_bytes, skip.mtime_ns) == (record.size_bytes, record.mtime_ns):
        plan.set_aside.append(Skipped(record.key, skip.reason, known=True))
        if record.key in plan.before:
            plan.stale.append(record.key)
    else:
        plan.to_embed.append(record)


def _plan_unknown(
    plan: Plan,
    records: list[ImageRecord],
    skips: dict[str, KnownSkip],
    owners: dict[str, str | None],
    source: Source,
) -> None:
    for record in records:
        if record.key not in owners:
            _plan_look(plan, record, skips.get(record.key))
            continue
        owner = owners[record.key]
        reason = f"the key belongs to gallery {owner}" if owner else "the key belongs to an upserted picture"
        reason += "; index this gallery with a --key-prefix of its own"
        plan.set_aside.append(Skipped(record.key, reason, known=record.key in skips))
        if record.key not in skips:
            plan.skips.append(Skip(source.id, record.key, reason, _UNKNOWN, _UNKNOWN))


def _plan_unusable(
    plan: Plan, unusable: list[Skipped], known: dict[str, Known], skips: dict[str, KnownSkip], source: Source
) -> None:
    for skip in unusable:
        if known.pop(skip.key, None) is not None:
            plan.stale.append(skip.key)
        is_known = skip.cause == "decode" and skip.key in skips
        plan.set_aside.append(Skipped(skip.key, skip.reason, known=is_known))
        if skip.cause == "decode" and not is_known:
            plan.skips.append(Skip(source.id, skip.key, skip.reason, skip.size_bytes, skip.mtime_ns))


def refuse_suspicious_removals(plan: Plan, listing: Listing) -> None:
    """Raise where a gallery looks mistyped, emptied or not mounted rather than changed.

    Raises:
        GalleryError: it holds nothing, and so does the index's part of it.
        RemovalsRefused: nothing is left of it, or more than `LARGEST_REMOVAL` has vanished.
    """
    gone = len(plan.vanished)
    if not plan.held:
        refuse_empty(listing)
    if gone > LARGEST_REMOVAL * plan.held or (gone and not listing.records):
        raise RemovalsRefused(
            f"{gone} of the {plan.held} pictures of {listing.source} have vanished, at most {LARGEST_REMOVAL:.0%} are "
            "removed unasked; nothing was changed. Check the path, or pass --allow-removals (or --no-remove to keep "
            "them)"
        )


def refuse_empty(listing: Listing) -> None:
    """Raise where a gallery holds nothing, not even something that cannot be used.

    Raises:
        GalleryError
    """
    if not (listing.records or listing.skipped or listing.unlisted):
        raise GalleryError(f"gallery {listing.source} holds no pictures; check the path")


def attributes_of(record: ImageRecord) -> Attributes:
    """What the catalog stores of a record beside its picture."""
    return Attributes(record.product_id, record.label, record.metadata)


def attributes_before(before: Known) -> Attributes:
    """The same of what the catalog holds."""
    return Attributes(before.product_id, before.label, json.loads(before.metadata))
