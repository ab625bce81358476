"""UTD-MHAD: 27 actions of 8 subjects, seen by a wrist-worn inertial sensor and a Kinect (skeleton and depth)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.prepare.recipe import TEST, TRAIN, DatasetInfo, Job, Recipe, Sample
from edge_cmcl.data.prepare.source import Found
from edge_cmcl.data.prepare.text import damaged
from edge_cmcl.data.prepare.utd_depth import DepthFiles, load_mat

INERTIAL_SAMPLES, KINECT_SAMPLES = 128, 64
TYPICAL_TRIAL_S = 3.5
JOINTS, CENTRE = 20, 2  # the third joint of the published order is the spine
MIN_RAW_SAMPLES = 2

_ACTIONS = (
    "right arm swipe to the left",
    "right arm swipe to the right",
    "right hand wave",
    "two hand front clap",
    "right arm throw",
    "cross arms in the chest",
    "basketball shoot",
    "right hand draw x",
    "right hand draw circle clockwise",
    "right hand draw circle counter clockwise",
    "draw triangle",
    "bowling right hand",
    "front boxing",
    "baseball swing from right",
    "tennis right hand forehand swing",
    "arm curl two arms",
    "tennis serve",
    "two hand push",
    "right hand knock on door",
    "right hand catch an object",
    "right hand pick up and throw",
    "jogging in place",
    "walking in place",
    "sit to stand",
    "stand to sit",
    "forward lunge left foot forward",
    "squat two arms stretch out",
)

Key = tuple[int, int, int]
"""Subject, action, trial."""


def _samples(job: Job) -> Iterator[Sample]:
    files: dict[str, dict[Key, Found]] = {"inertial": {}, "skeleton": {}, "depth": {}}
    small = None
    for file in job.found:
        if file.match["kind"] is None:
            small = file
        else:
            files[file.match["kind"]][_key(file)] = file
    with DepthFiles(files["depth"], small) as depth:
        if not depth:
            job.notes.append("No depth files were found, so the modality depth is left out.")
        trials = sorted(set(files["inertial"]) | set(files["skeleton"]), key=lambda key: (_split(key) == TEST, key))
        for key in job.each(trials):
            missing = [kind for kind in ("inertial", "skeleton") if key not in files[kind]]
            missing += ["depth"] if depth and key not in depth else []
            if missing:
                job.drops.drop(f"no {missing[0]} file")
                continue
            records = _records(files["inertial"][key], files["skeleton"][key])
            if depth:
                records["depth"] = (depth.read(key), KINECT_SAMPLES)
            windows = job.fit(records)
            if windows is not None:
                yield Sample(_split(key), {"": windows}, label=key[1] - 1, group=key[0])


def _key(file: Found) -> Key:
    subject, action, trial = (int(file.match[group]) for group in ("subject", "action", "trial"))
    if not 1 <= action <= len(_ACTIONS):
        raise damaged(file, f"an action from 1 to {len(_ACTIONS)}", f"action {action}")
    return subject, action, trial


def _split(key: Key) -> str:
    return TRAIN if key[0] % 2 else TEST


def _records(inertial: Found, skeleton: Found) -> dict[str, tuple[NDArray[Any], int]]:
    motion = load_mat(inertial, "d_iner")
    if motion.ndim != 2 or motion.shape[1] != 6 or len(motion) < MIN_RAW_SAMPLES:
        raise damaged(inertial, "d_iner of shape (T, 6)", str(motion.shape))
    joints = load_mat(skeleton, "d_skel")
    if joints.ndim != 3 or joints.shape[:2] != (JOINTS, 3) or joints.shape[2] < MIN_RAW_SAMPLES:
        raise damaged(skeleton, f"d_skel of shape ({JOINTS}, 3, T)", str(joints.shape))
    centred = joints - np.nanmean(joints[CENTRE], axis=1)[None, :, None]
    return {
        "acc": (motion[:, :3], INERTIAL_SAMPLES),
        "gyro": (np.deg2rad(motion[:, 3:]), INERTIAL_SAMPLES),
        "skeleton": (centred.transpose(2, 0, 1).reshape(joints.shape[2], JOINTS * 3), KINECT_SAMPLES),
    }


RECIPE = Recipe(
    info=DatasetInfo(
        name="utd_mhad",
        title="UTD-MHAD: 27 actions of 8 subjects with a wrist-worn inertial sensor and a Kinect",
        sensors=("acc", "gyro", "skeleton", "depth"),
        url="https://personal.utdallas.edu/~kehtar/UTD-MHAD.html",
        licence="none stated; published for research, with citation",
        citation="C. Chen, R. Jafari, N. Kehtarnavaz: UTD-MHAD: A multimodal dataset for human action recognition "
        "utilizing a depth camera and a wearable inertial sensor. ICIP 2015.",
        steps=("skeleton-acc", "acc-gyro", "skeleton-depth"),
        files="aA_sS_tT_inertial.mat and aA_sS_tT_skeleton.mat (and, for depth, aA_sS_tT_depth.mat or depth_60x80.npz)",
    ),
    wanted=re.compile(
        r"(?:^|/)(?:a(?P<action>\d+)_s(?P<subject>\d+)_t(?P<trial>\d+)_(?P<kind>inertial|skeleton|depth)\.mat"
        r"|depth_60x80\.npz)$"
    ),
    labels=_ACTIONS,
    rate_hz={
        "acc": INERTIAL_SAMPLES / TYPICAL_TRIAL_S,
        "gyro": INERTIAL_SAMPLES / TYPICAL_TRIAL_S,
        "skeleton": KINECT_SAMPLES / TYPICAL_TRIAL_S,
        "depth": KINECT_SAMPLES / TYPICAL_TRIAL_S,
    },
    units={"acc": "g", "gyro": "rad/s", "skeleton": "m", "depth": "m"},
    recipe="Whole trials; acc and gyro 128 samples, skeleton and depth 64; skeleton minus the trial's mean of the "
    "third joint; depth every second frame, 8 x 8 blocks, 0 for no reading. Odd subjects train, even subjects test; "
    "group = subject.",
    samples=_samples,
)
