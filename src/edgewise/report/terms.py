"""The words of the page, each explained where it is pointed at, and its folded sections."""

from collections.abc import Mapping

from ..values.markup import Attribute, Child, Markup, tag

_SPLIT = "Examples that {}."
TERMS = {
    "macs": "Multiply-accumulates for one example: the work that the network does.",
    "parameters": "The numbers that training sets.",
    "size of weights": "Bytes of the parameters: about the size of the file.",
    "activations": "Bytes of everything that the operators pass on for one example.",
    "latency": "The time that one batch takes, measured on the pruned network itself.",
    "units": "A unit is the smallest thing that can be removed: a connection or a whole branch, a "
    "layer, a slice of channels, or heads.",
    "unit": "The smallest thing that can be removed.",
    "kind": "edge: a connection or a whole branch; layer: passed by; hidden and channels: a slice "
    "of a width; heads: of attention.",
    "loss": "What training made small: lower is better.",
    "loss without it": "The loss when this unit alone is removed.",
    "search split": _SPLIT.format("guided the search"),
    "verify split": _SPLIT.format("decided among the finalists"),
    "report split": _SPLIT.format("had no part in the choice: what a user may expect"),
    "after healing": "Fine-tuned after pruning, and measured on the report split.",
    "budget": "Limits on what may be left.",
    "surrogate": "A model that predicts the loss of a mask from the losses of others.",
    "mask": "What is removed: a bit for each unit, 1 = removed.",
    "recovery": "Repair of the weights that stay, without training; part of every evaluation.",
    "finalists": "Masks that were measured again on the verify split.",
    "fingerprint": "Identifies the network by its structure.",
    "status": "Protected: without it alone more is lost than by pruning to the budget.",
    "predicted loss": "What the surrogate expects, and one standard deviation.",
    "compared": "How well each surrogate predicted masks that it had not seen; higher is better.",
}  # fmt: skip


def term(word: str) -> Child:
    """A word, explained where it is pointed at if it has an explanation."""
    text = TERMS.get(word.lower())
    return word if text is None else tag("abbr", word, title=text, tabindex=0)


def fold(name: str, title: str, hint: str, lead: Child, *children: Child) -> Markup:
    """A section that opens where it is asked for, by its title and what it is about."""
    return tag(
        "details",
        tag("summary", tag("h2", title), tag("span", hint, class_="hint")),
        tag("p", lead, class_="lead") if lead else None,
        *children,
        id=name,
        class_="fold",
    )


def definitions(facts: Mapping[str, Child]) -> Markup:
    """Words and what they stand for."""
    rows = (tag("div", tag("dt", term(name)), tag("dd", fact)) for name, fact in facts.items())
    return tag("dl", rows, class_="facts")


def command(text: str) -> Markup:
    """A command, whose lines end before its options and not within them."""
    first, *options = text.split(" --")
    return tag("code", first, ([" ", tag("span", f"--{option}")] for option in options))


def scrolled(label: str, *children: Child, class_: str = "", **attributes: Attribute) -> Markup:
    """What scrolls by itself where it is too wide, by keyboard, too."""
    name = f"scroll {class_}".strip()
    return tag(
        "div", *children, class_=name, tabindex=0, role="group", aria_label=label, **attributes
    )
