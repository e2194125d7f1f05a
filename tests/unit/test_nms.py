"""Non-maximum suppression against torchvision's CPU kernel, written as a plain loop (csrc/ops/cpu/nms_kernel.cpp)."""

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.agent import decoding


def by_loop(corners, scores, classes, threshold):
    """The kernel, for the boxes of each class by themselves; what is kept by descending score, ties in their given order."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    dropped, kept = set(), []
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    zero = corners.dtype.type(0)
    for place, i in enumerate(order):
        if i in dropped:
            continue
        kept.append(i)
        for j in order[place + 1 :]:
            if j in dropped or classes[i] != classes[j]:
                continue
            w = max(zero, min(corners[i, 2], corners[j, 2]) - max(corners[i, 0], corners[j, 0]))
            h = max(zero, min(corners[i, 3], corners[j, 3]) - max(corners[i, 1], corners[j, 1]))
            with np.errstate(all="ignore"):
                overlap = w * h / (areas[i] + areas[j] - w * h)
            if float(overlap) > threshold:
                dropped.add(j)
    return kept


def boxes(rng, count, dtype=np.float32, whole=False):
    """Around some centers, so that many overlap; whole: on a coarse grid, so that overlaps hit thresholds exactly and areas are 0."""
    centers = rng.uniform(0, 100, (max(1, count // 8), 2))[rng.integers(0, max(1, count // 8), count)]
    sides = rng.uniform(5, 30, (count, 2))
    if whole:
        centers, sides = rng.integers(0, 8, (count, 2)), rng.integers(0, 5, (count, 2)) * 2
    made = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)
    return made.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.45, 0.65, 1.0])
def test_random_boxes(dtype, classes, threshold):
    rng = np.random.default_rng(0)
    corners, scores = boxes(rng, 300, dtype), rng.random(300).astype(dtype)
    groups = rng.integers(0, classes, 300)
    kept = decoding.suppress(corners, scores, groups, threshold)
    assert kept.tolist() == by_loop(corners, scores, groups, threshold)
    assert classes > 1 or kept.tolist() == decoding.suppress(corners, scores, None, threshold).tolist()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.sampled_from([0.1, 0.2, 1 / 3, 0.5, 0.6]), st.sampled_from([np.float32, np.float64]))
def test_ties_boxes_without_area_and_overlaps_at_the_threshold(seed, count, threshold, dtype):
    rng = np.random.default_rng(seed)
    corners, scores, groups = boxes(rng, count, dtype, whole=True), rng.integers(0, 4, count).astype(dtype) / 4, rng.integers(0, 2, count)
    assert decoding.suppress(corners, scores, groups, threshold).tolist() == by_loop(corners, scores, groups, threshold)


def test_an_overlap_of_a_tenth_in_float32_is_above_a_tenth():
    """1 of 10 pixels: float32(0.1) is a little more than 0.1, with which torchvision compares it."""
    corners = np.array([[0, 0, 10, 1], [0, 0, 1, 1]], np.float32)
    assert float(np.float32(1) / np.float32(10)) > 0.1
    assert decoding.suppress(corners, np.array([0.9, 0.8], np.float32), None, 0.1).tolist() == [0]
    assert decoding.suppress(corners.astype(np.float64), np.array([0.9, 0.8]), None, 0.1).tolist() == [0, 1]


def test_boxes_without_area_stay():
    corners = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [5, 0, 5, 9]], np.float32)
    assert decoding.suppress(corners, np.array([0.5, 0.5, 0.9], np.float32), None, 0.5).tolist() == [2, 0, 1]


def test_thousands_of_boxes_in_several_blocks():
    rng = np.random.default_rng(1)
    corners, scores, groups = boxes(rng, 2000), rng.random(2000).round(2).astype(np.float32), rng.integers(0, 3, 2000)
    expected = by_loop(corners, scores, groups, 0.5)
    assert len(expected) > decoding.BLOCK
    assert decoding.suppress(corners, scores, groups, 0.5).tolist() == expected
    assert decoding.suppress(corners, scores, groups, 0.5, most=200).tolist() == expected[:200]


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_size_of_a_block_changes_nothing(block, monkeypatch):
    rng = np.random.default_rng(2)
    corners, scores = boxes(rng, 200), rng.random(200).astype(np.float32)
    expected = decoding.suppress(corners, scores, None, 0.4).tolist()
    monkeypatch.setattr(decoding, "BLOCK", block)
    assert decoding.suppress(corners, scores, None, 0.4).tolist() == expected


def test_no_boxes():
    assert decoding.suppress(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), None, 0.5).tolist() == []


def test_python_3_9_can_read_it():
    ast.parse(Path(decoding.__file__).read_text(encoding="utf-8"), feature_version=(3, 9))
