"""Do two pictures show the same product? What is learned about that from held-out pictures, and how well it does."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.calibration.head import PairHead, fit_head
from retrieval.calibration.logistic import Calibration, fit_calibration
from retrieval.calibration.newton import log_losses
from retrieval.calibration.pairs import HITS, Ints, Pairs, Vectors, label_codes, sample_hits, sample_pairs
from retrieval.calibration.reliability import (
    ReliabilityBin,
    Threshold,
    expected_calibration_error,
    pairs_needed,
    reliability_bins,
    threshold_at,
)

FALSE_ACCEPT_RATES = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
MIN_PAIRS = 20  # of either kind in either half: ten for each of two coefficients (Peduzzi et al. 1996)
MAX_HITS = 640  # for each picture, where the first ten are nearly all right or nearly all wrong
MAX_HEAD_PAIRS = 20_000  # with D = 256 their joined pairs are 41 MB


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How good a calibration is on products that it was not fitted on.

    Attributes:
        pairs: how many hits of searches it was tried on.
        match_share: the share of them that match.
        log_loss: mean cross-entropy over them, in nats.
        expected_calibration_error: over them; see the function of that name.
        reliability: predicted against observed, over them.
        thresholds: over pairs of any two pictures, for those of `FALSE_ACCEPT_RATES` that there are pairs enough for.
    """

    pairs: int
    match_share: float
    log_loss: float
    expected_calibration_error: float
    reliability: tuple[ReliabilityBin, ...]
    thresholds: tuple[Threshold, ...]


@dataclass(frozen=True, slots=True)
class HeadTrial:
    """Whether a learned head was better than the plain distance on held-out pairs.

    Attributes:
        log_loss: of the head; that of the plain distance is `HeldOut.log_loss`.
        gain: by how much it is lower; negative where it is not.
        standard_error: of the gain; the hits of one product's pictures count as one observation.
    """

    log_loss: float
    gain: float
    standard_error: float

    @property
    def is_won(self) -> bool:
        """Whether the head is better by more than chance: then it is kept."""
        return self.gain > self.standard_error


@dataclass(frozen=True, slots=True)
class Matcher:
    """Everything a model knows about "the same product?".

    Attributes:
        calibration: from a score alone; what hits of a search get.
        held_out: how good that is.
        trial: of the head; None where a sample that it can bear has too few right or wrong hits.
        head: from both embeddings, if it won its trial.
    """

    calibration: Calibration
    held_out: HeldOut
    trial: HeadTrial | None
    head: PairHead | None

    def probability(self, first: Vectors, second: Vectors) -> NDArray[np.float64]:
        """(M,) probabilities that M pairs of (M, D) unit rows show the same product; by the head if there is one."""
        if self.head is not None:
            return self.head.probability(first, second)
        return self.calibration.probability((first * second).sum(axis=1))

    def threshold(self, false_accept_rate: float) -> Threshold | None:
        """The measured threshold with the greatest rate that is not above the one asked for; None if there is none."""
        fitting = [one for one in self.held_out.thresholds if one.false_accept_rate <= false_accept_rate]
        return max(fitting, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "calibration": self.calibration.to_dict(),
            "held_out": {
                **asdict(self.held_out),
                "reliability": [one._asdict() for one in self.held_out.reliability],
                "thresholds": [one._asdict() for one in self.held_out.thresholds],
            },
            "trial": None if self.trial is None else asdict(self.trial),
            "head": None if self.head is None else self.head.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Matcher":
        """Rebuild from `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or is not what it should be.
        """
        held = dict(values["held_out"])
        held["reliability"] = tuple(ReliabilityBin(**one) for one in held["reliability"])
        held["thresholds"] = tuple(Threshold(**one) for one in held["thresholds"])
        return cls(
            Calibration.from_dict(values["calibration"]),
            HeldOut(**held),
            None if values["trial"] is None else HeadTrial(**values["trial"]),
            None if values["head"] is None else PairHead.from_dict(values["head"]),
        )


def fit_match(embeddings: Vectors, labels: ArrayLike, *, seed: int) -> Matcher | None:
    """Learn from held-out pictures what a score says about "the same product?", and measure how right that is.

    The labels are divided into two halves, and each half is searched for itself. On the hits of one the calibration
    and the head are fitted; the other, products that neither has seen, says how good the calibration is, where the
    thresholds lie and whether the head is kept. Both functions answer: of hits such as this one, what share show the
    product searched for? See docs/decisions/0017-what-a-match-probability-means.md.

    Args:
        embeddings: (N, D) unit rows, of pictures that the encoder was not trained on, best of products it was not.
        labels: (N,) of any one type that can be sorted.
        seed: of the division and of the pairs.

    Returns:
        None where the hits in either half include fewer than `MIN_PAIRS` right or wrong ones, however many are looked
        at: too few pictures, or labels with one picture each.

    Raises:
        ValueError: `embeddings` and `labels` disagree on N.
    """
    rows = np.asarray(embeddings)
    codes = label_codes(rows, labels)
    halves = [np.flatnonzero(np.isin(codes, half)) for half in _halves(codes, seed)]
    hits = _enough_hits(rows, codes, halves, seed)
    if hits is None:
        return None
    fitting, testing = hits
    calibration = fit_calibration(fitting.scores, fitting.is_match)
    any_pairs = sample_pairs(rows[halves[1]], codes[halves[1]], seed=seed)
    held_out = _measure(calibration, testing, any_pairs)
    fitting, testing = (_at_most(pairs, MAX_HEAD_PAIRS, seed) for pairs in hits)
    if not (_are_enough(fitting) and _are_enough(testing)):
        return Matcher(calibration, held_out, None, None)
    head = _fit_head(calibration, rows, fitting)
    trial = _try_head(head, calibration, rows, codes, testing)
    return Matcher(calibration, held_out, trial, head if trial.is_won else None)


def _halves(codes: Ints, seed: int) -> tuple[Ints, Ints]:
    """The labels in two halves, each with half of those that have one picture only."""
    sizes = np.bincount(codes)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    ordered = shuffled[np.argsort(sizes[shuffled] == 1, kind="stable")]
    return ordered[::2], ordered[1::2]


def _enough_hits(embeddings: Vectors, codes: Ints, halves: list[Ints], seed: int) -> list[Pairs] | None:
    """The hits in each half: ten for a picture, or more until there are right and wrong ones enough."""
    k = HITS
    while True:
        found = [_hits_within(embeddings, codes, members, seed, k) for members in halves]
        if all(map(_are_enough, found)):
            return found
        if k >= min(MAX_HITS, max(map(len, halves))):
            return None
        k *= 2


def _are_enough(pairs: Pairs) -> bool:
    return bool(MIN_PAIRS <= pairs.is_match.sum() <= len(pairs.is_match) - MIN_PAIRS)


def _hits_within(embeddings: Vectors, codes: Ints, members: Ints, seed: int, k: int) -> Pairs:
    hits = sample_hits(embeddings[members], codes[members], seed=seed, k=k)
    return hits._replace(first=members[hits.first], second=members[hits.second])


def _at_most(pairs: Pairs, limit: int, seed: int) -> Pairs:
    kept = np.sort(np.random.default_rng(seed).permutation(len(pairs.scores))[:limit])
    return Pairs(pairs.scores[kept], pairs.is_match[kept], pairs.first[kept], pairs.second[kept])


def _measure(calibration: Calibration, hits: Pairs, any_pairs: Pairs) -> HeldOut:
    probabilities = calibration.probability(hits.scores)
    others = int((~any_pairs.is_match).sum())
    rates = [rate for rate in FALSE_ACCEPT_RATES if others >= pairs_needed(rate)]
    return HeldOut(
        pairs=len(hits.scores),
        match_share=float(hits.is_match.mean()),
        log_loss=float(log_losses(calibration.log_odds(hits.scores), hits.is_match.astype(np.float64)).mean()),
        expected_calibration_error=expected_calibration_error(probabilities, hits.is_match),
        reliability=reliability_bins(probabilities, hits.is_match),
        thresholds=tuple(threshold_at(rate, any_pairs.scores, any_pairs.is_match) for rate in rates),
    )


def _fit_head(calibration: Calibration, embeddings: Vectors, pairs: Pairs) -> PairHead:
    return fit_head(embeddings[pairs.first], embeddings[pairs.second], pairs.is_match, calibration)


def _try_head(head: PairHead, calibration: Calibration, embeddings: Vectors, codes: Ints, pairs: Pairs) -> HeadTrial:
    targets = pairs.is_match.astype(np.float64)
    learned = log_losses(head.log_odds(embeddings[pairs.first], embeddings[pairs.second]), targets)
    gains = log_losses(calibration.log_odds(pairs.scores), targets) - learned
    products, members = np.unique(codes[pairs.first], return_inverse=True)
    deviations = np.bincount(members, gains - gains.mean()) / len(gains)  # what each product adds to the error
    spread = math.sqrt(float(deviations @ deviations) * len(products) / max(len(products) - 1, 1))
    return HeadTrial(float(learned.mean()), float(gains.mean()), spread)
