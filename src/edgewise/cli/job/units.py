"""Which units of a model a job offers: those that it names, and that its form of result has."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields

from ...errors import ConfigError, MaskError, RuleError
from ...graph.graph import Graph
from ...graph.rules import Rules, ruled
from ...pruning.module_form import without_module_form
from ...values.files import write_text
from .config import Config
from .kept import make_directory, read_kept
from .sections import UnitsSection

SHOWN = 3  # units that are told with their reasons


def select_units(graph: Graph, units: UnitsSection) -> Graph:
    """The graph with the units that match `only` (if given) and not `exclude`, under the rules.

    Raises:
        ConfigError: a glob matches nothing, a rule cannot be used, or no unit is left.
    """
    try:
        keep = {unit.name for glob in units.only or ("*",) for unit in graph.named(glob)}
        keep -= {unit.name for glob in units.exclude for unit in graph.named(glob)}
    except MaskError as error:
        raise ConfigError(f"[units] {error}") from None
    if not keep:
        raise ConfigError(f"[units] only and exclude leave none of the {len(graph.units)} units.")
    rules = Rules(**{f.name: getattr(units, f.name) for f in fields(Rules)})
    chosen = graph.select(lambda unit: unit.name in keep)
    try:
        return chosen if rules == Rules() else ruled(chosen, rules)
    except RuleError as error:
        raise ConfigError(f"[units] {error}") from error


def servable(config: Config, graph: Graph, say: Callable[[str], None]) -> Graph:
    """The graph with the units that a job's form of result has.

    For the module form each unit is removed by itself once, and `module_form.json` in the output
    directory keeps what cannot be, so that all commands of a job speak of the same graph.

    Raises:
        ConfigError: no unit is left.
        FormError: the model cannot be copied.
    """
    if config.result.form == "program":
        return graph
    path, count = config.directory / "module_form.json", len(graph.units)
    kept = read_kept(path, _Without) if path.exists() else None
    if kept is None or kept.fingerprint != graph.fingerprint:
        say(f"Looking which of {count} units the model's own class does without")
        kept = _Without(graph.fingerprint, without_module_form(graph))
        make_directory(config.directory)
        write_text(path, json.dumps(asdict(kept), indent=1) + "\n")
    if not kept.without:
        return graph
    shown = [f"\n  {name}: {why}" for name, why in list(kept.without.items())[:SHOWN]]
    if len(kept.without) == count:
        raise ConfigError(
            f'[result] form = "module" serves none of the {count} units: each needs '
            f'form = "program", which every mask has.{"".join(shown)}'
        )
    say(
        f"Left out of the search: {len(kept.without)} of {count} units, without which the model's "
        f'own class cannot do ([result] form = "module"). {path.name} has all reasons; the first:'
        f"{''.join(shown)}"
    )
    without = kept.without
    return graph.select(lambda unit: unit.name not in without)


@dataclass(frozen=True)
class _Without:
    fingerprint: str
    without: Mapping[str, str]
