"""Tables as notebooks show them: p values, missing numbers, long sentences."""

import numpy as np
import pandas as pd

from qlung.book import display


def test_p_values_are_never_shown_as_zero():
    shown = display.readable(pd.DataFrame({"p seeds": [0.0004, 0.001, 0.25, np.nan]}))
    assert shown["p seeds"].tolist() == ["< 0.001", "0.001", "0.250", "–"]


def test_numbers_have_their_digits_and_no_negative_zero():
    table = pd.DataFrame({"difference": [-0.04, 1.25, np.nan], "seeds": [3, 3, 5], "inside": [True, False, None]})
    shown = display.readable(table)
    assert shown["difference"].tolist() == ["0.0", "1.2", "–"]
    assert shown["seeds"].tolist() == [3, 3, 5]
    assert shown["inside"].tolist() == [True, False, "–"]


def test_sentences_are_shown_in_full_and_the_same_in_every_run():
    table = pd.DataFrame({"text": ["a long sentence " * 40], "number": [0.126]})
    first, second = (display.prose(table, "claims").data for _ in range(2))
    assert first == second
    assert table["text"].iloc[0] in first
    assert "0.13" in first
    assert "text-align: left" in first
