"""Tables as a notebook shows them: rounded numbers, p values that are never 0, sentences that are never cut."""

import pandas as pd
from IPython.display import HTML


def readable(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """A table of numbers for reading: floats with ``digits`` decimals, an en dash where there is no number.

    A column "p", or whose name begins with "p ", holds p values: three decimals, and "< 0.001" below.
    """

    def shown(name: str, value) -> object:
        if pd.isna(value):
            return "–"
        if str(name).split()[0] == "p":
            return "< 0.001" if value < 0.001 else f"{value:.3f}"
        return f"{round(value, digits) + 0.0:.{digits}f}" if isinstance(value, float) else value  # + 0: no "-0.0"

    columns = {name: [shown(name, value) for value in table[name]] for name in table}
    return pd.DataFrame(columns)


def prose(table: pd.DataFrame, name: str) -> HTML:
    """A table of sentences: left-aligned, in full length and without an index.

    Parameters
    ----------
    table : DataFrame
    name : str
        Identifier of the HTML table; one of its own keeps the notebook's bytes the same in every run.
    """
    left = {"text-align": "left", "vertical-align": "top"}
    style = table.style.hide(axis="index").set_uuid(name).format(precision=2, na_rep="–")
    style = style.set_properties(**left).set_table_styles([{"selector": "th", "props": list(left.items())}])
    return HTML(style.to_html())
