"""Tables as markup."""

import re

from edgewise.values.markup import card, row, table


def test_a_table_names_its_rows_and_columns_and_escapes_the_rest() -> None:
    made = table(("a", "<b>"), [("x", 1), row(("y", None), class_="odd")], "of", class_="t")
    assert made == (
        '<table class="t"><caption>of</caption><thead><tr><th scope="col">a</th>'
        '<th scope="col">&lt;b&gt;</th></tr></thead><tbody>'
        '<tr><th scope="row">x</th><td>1</td></tr>'
        '<tr class="odd"><th scope="row">y</th><td></td></tr></tbody></table>'
    )


def test_a_card_leaves_out_what_is_not_there() -> None:
    made = card("<title>", {"here": 0, "gone": None, "empty": "", "text": "<b>"})
    assert "&lt;title&gt;" in made
    assert "Gone" not in made
    assert "Empty" not in made
    assert re.search(r"<th[^>]*><div[^>]*>Here</div></th><td><div[^>]*>0</div></td>", made)
    assert "&lt;b&gt;" in made
