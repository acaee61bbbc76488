"""Splits keep patients together and lose nothing; the patients on both sides of the official split are known."""

import pytest

from qlung import load_corpus
from qlung.corpora import icbhi, splits
from qlung.errors import ConfigError


def patients_by_split(corpus):
    return corpus.recordings.groupby("split")["patient_id"].agg(set).to_dict()


@pytest.fixture(scope="module")
def part(real_root):
    return load_corpus("icbhi", real_root)


def test_the_official_split_shares_two_patients(reference):
    by_patient = {}
    for name, side in icbhi.read_split(reference / "icbhi").items():
        by_patient.setdefault(name[:3], set()).add(side)
    assert sorted(patient for patient, both in by_patient.items() if len(both) == 2) == ["156", "218"]


def test_shared_patients_are_found_and_a_split_changes_nothing_else(part):
    shared = splits.shared_patients(part)
    assert shared["patient_id"].tolist() == ["218"]  # of 156, only one side is at hand
    moved = splits.with_split(part, part.recordings["split"].mask(part.recordings["patient_id"] == "218", "test"))
    assert not splits.shared_patients(moved).shape[0]
    assert (moved.events["split"] != part.events["split"]).sum() == shared["train"].sum() > 0
    assert moved.events.drop(columns="split").equals(part.events.drop(columns="split"))


def test_folds_cover_every_event_once_and_keep_patients_together(part):
    folds = splits.grouped_folds(part, 5, seed=1)
    tested = [event for fold in folds for event in fold.select("test").events["event_id"]]
    assert sorted(tested) == sorted(part.events["event_id"])
    for fold in folds:
        assert not patients_by_split(fold)["train"] & patients_by_split(fold)["test"]
        assert all(fold.select("test").counts())
    again = splits.grouped_folds(part, 5, seed=1)
    assert all(a.fingerprint() == b.fingerprint() for a, b in zip(folds, again, strict=True))
    assert folds[0].fingerprint() != splits.grouped_folds(part, 5, seed=2)[0].fingerprint()
    with pytest.raises(ConfigError, match="folds of"):
        splits.grouped_folds(part, 1)


def test_devices_are_left_out_in_turn_and_so_are_their_patients(part):
    folds = splits.device_folds(part)
    tested = [event for fold in folds for event in fold.select("test").events["event_id"]]
    assert sorted(tested) == sorted(part.events["event_id"])
    for fold in folds:
        sides = {side: fold.select(side).recordings for side in ("train", "test")}
        for name in ("patient_id", "listed_device"):
            assert not set(sides["train"][name]) & set(sides["test"][name])
    share = part.of_events("listed_device").value_counts(normalize=True)
    assert len(folds) == (share >= 0.1).sum() + (share < 0.1).any()
