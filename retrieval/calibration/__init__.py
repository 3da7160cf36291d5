"""Which score means "the same product"? Probabilities and thresholds, fitted to labelled pairs; numpy alone."""

from retrieval.calibration.compare import compare
from retrieval.calibration.head import PairHead, fit_head
from retrieval.calibration.logistic import Calibration, fit_calibration
from retrieval.calibration.matching import HeadTrial, HeldOut, Matcher, fit_match
from retrieval.calibration.pairs import Pairs, sample_hits, sample_pairs
from retrieval.calibration.reliability import (
    ReliabilityBin,
    Threshold,
    expected_calibration_error,
    reliability_bins,
    threshold_at,
)
from retrieval.calibration.stored import find_matcher, find_matcher_if_whole, load_matcher, save_matcher

__all__ = [
    "Calibration",
    "HeadTrial",
    "HeldOut",
    "Matcher",
    "PairHead",
    "Pairs",
    "ReliabilityBin",
    "Threshold",
    "compare",
    "expected_calibration_error",
    "find_matcher",
    "find_matcher_if_whole",
    "fit_calibration",
    "fit_head",
    "fit_match",
    "load_matcher",
    "reliability_bins",
    "sample_hits",
    "sample_pairs",
    "save_matcher",
    "threshold_at",
]
