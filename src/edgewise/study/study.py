"""A study: all evaluations of one graph and objective, kept, resumed, and made into plans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.bar import shown
from ..evaluation.engine import EngineOptions
from ..evaluation.evaluator import MakeExecutor, Serial
from ..evaluation.objective import Objective, Recovery
from ..evaluation.records import Comparison, Evaluation, Split
from ..graph.budget import Budget, as_budget
from ..graph.graph import Graph, Mask
from ..graph.liveness import liveness
from ..graph.times import OperatorTimes
from ..latency import LatencyTable
from ..pruning.plan import Plan
from ..report import Facts, Insight, Outcome, Plot
from ..search import Ask, Patience, Point, Questions, Space, search
from ..surrogates.interactions import Interactions
from ..surrogates.searcher import Searcher, recalled, searcher
from ..values.quantities import check_count
from .confirming import check_savable, check_unpruned, confirm, tell_cost
from .finalists import verified
from .fitting import searching
from .frame import frame
from .insights import Knowledge
from .measuring import Measuring, offered
from .planning import Planner
from .progress import Callback, Teller, Told, silent
from .provenance import identity
from .statistics import compare
from .storage.storage import Storage


class Study:
    """All evaluations of one graph and objective.

    Every finished evaluation is stored at once; a study that was interrupted anywhere continues
    when the same `run` is called again, and ends with the same plan. A stored study is opened for
    the network and the objective that it was made with: what they consist of is compared, and one
    mask, the unpruned network if it is there, is measured again.

    Args:
        graph: the traced graph.
        objective: what an evaluation measures.
        storage: an SQLAlchemy URL, e.g. "sqlite:///runs.db"; None keeps it in memory.
        name: of the study in the storage.
        executor: makes what measures masks, of the graph, the objective and the engine's options:
            `Serial`, or `ew.Ray(...)` for many processes and machines. The results are the same.
        engine: memory, layout and the like, of every process that measures.
        latency: a table of operator times on this machine, which a budget of latency needs.

    Raises:
        LatencyError: the table is of another machine, or of another graph.
        ExecutorError: the executor cannot be started.
        StorageError: the stored study belongs to another graph, other weights or another
            objective (says what differs), or what it holds is not what is measured again (gives
            both numbers); or the storage cannot be used.

    Examples:
        >>> study = ew.Study(graph, objective, storage="sqlite:///runs.db")
        >>> study.run(evaluations=20, budget=ew.Budget(macs=0.7))
        >>> plan = study.plan()
        >>> plan.after.macs <= 0.7 * plan.before.macs
        True
    """

    def __init__(
        self, graph: Graph, objective: Objective, storage: str | None = None, name: str = "study",
        *, executor: MakeExecutor = Serial, engine: EngineOptions | None = None,
        latency: LatencyTable | None = None,
    ) -> None:  # fmt: skip
        self.graph, self.name = graph, name
        check_savable(graph)
        program = graph.program
        self.objective = objective = objective if program.whole else objective.placed(program.names)
        self.latency = latency and latency.check(graph)
        self._searchers: dict[str, Searcher] = {}  # surrogates of the user's own, by their names
        self._identity = own = identity(graph, objective)
        self.storage = Storage(storage, name, own)
        workers = executor(graph, objective, engine or EngineOptions())
        tell = partial(tell_cost, graph, objective)
        self._measuring = Measuring(objective, self.storage, workers, tell)
        try:
            confirm(graph, objective, self.storage, workers, own)
        except BaseException:
            workers.close()
            raise

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the evaluations can still be read."""
        self._measuring.executor.close()

    def __repr__(self) -> str:
        return f"Study({self.name!r}, {len(self.evaluations)} evaluations, {self.graph})"

    def _repr_html_(self) -> str:
        return self._facts().card(f"Study {self.name}")

    @property
    def evaluations(self) -> list[Evaluation]:
        """All evaluations so far, in the order in which they were finished."""
        return self.storage.evaluations()

    def frame(self) -> Any:
        """The evaluations as a pandas DataFrame, one column a metric.

        Raises:
            EdgewiseError: pandas is not installed.
        """
        return frame(self.evaluations)

    def evaluate(self, masks: Iterable[Mask], split: Split = "search") -> list[Evaluation]:
        """Measure masks of your own choice; those known already are not measured again.

        Raises:
            MaskError, DisconnectedError: a mask is of another graph, or cuts off an output.
        """
        masks = tuple(masks)
        for mask in masks:
            liveness(self.graph, mask).require_connected()
        ask = Ask("given", "given", masks)
        return self._measuring.answer(ask, split, self._measuring.known(split), silent)

    def preview(self, mask: Mask) -> Evaluation:
        """A mask on the search split; it is stored once a search asks for it."""
        return self._measuring.preview(mask)

    def losses(self, mask: Mask, split: Split = "search") -> NDArray[np.float32] | None:
        """The stored loss of every example [n] of a split, in the order of the data.

        None where the mask has not been measured on it, or the loss gives a mean only.
        """
        return self.storage.losses(str(mask), split)

    def compare(
        self, first: Mask, second: Mask, split: Split = "search", rows: Any = slice(None)
    ) -> Comparison:
        """How much more one measured mask loses than another, example by example.

        Nothing is measured again. A paired comparison is far sharper than two intervals side by
        side, since most of what varies between examples is common to both masks.

        Args:
            first: a mask with stored losses.
            second: another.
            split: the data.
            rows: which examples count: a slice, indices or booleans [n]; all unless given.

        Returns:
            The mean of first minus second (negative: the first is better), with a 95 % interval.

        Raises:
            EdgewiseError: the losses of a mask are not stored.
        """
        return compare(*(self._measuring.losses(m, split)[rows] for m in (first, second)))

    def run(
        self, evaluations: int = 300, budget: Budget | float | str | None = None, *,
        examples: int | None = None, seed: int = 0, surrogate: Any = "auto",
        patience: int | None = None, progress: Callback | bool | None = None,
    ) -> None:  # fmt: skip
        """Search for good masks at a budget.

        Calling it again with the same budget, seed and surrogate resumes; with a larger number
        of evaluations it goes on; with another budget it starts from what is known.

        Args:
            evaluations: evaluations of this run in all, those done earlier included; one that sees
                a part of the search split counts for that part.
            examples: how many examples masks may see in all, in place of `evaluations`.
            budget: limits on what remains; a number or text alone limits the MACs.
            seed: of everything random.
            surrogate: "auto", the name of one in `ew.surrogates`, or a scikit-learn regressor
                (what makes one, without arguments, will do); those without an uncertainty get one
                from `ew.surrogates.Bootstrap`. A regressor is known by its class and settings.
            patience: rounds in a row, after which the search ends, in which nothing is expected
                to improve by half a standard error of a paired difference between the best masks;
                None uses up all evaluations. It needs the losses of single examples.
            progress: called after every evaluation; True draws a bar, also in notebooks.

        Raises:
            BudgetError: the budget cannot be met; names the smallest cost that can.
            ObjectiveError: the unpruned network cannot be measured.
            StorageError: the storage cannot be written to.
            EdgewiseError: there is to be patience, and the losses of examples are not known; or
                the surrogate is none, cannot be fitted, or predicts what is no loss.
        """
        budget = as_budget(budget)
        check_count("evaluations", evaluations)
        check_count("seed", seed, 0)
        limit: float = evaluations
        if examples is not None:
            check_count("examples", examples)
            limit = max(examples / self.objective.samples("search"), 1.0)
        waits = None if patience is None else Patience(patience, self._measuring.noise)
        found = self._searcher(surrogate)
        space = self.space(budget)
        settings = {"budget": budget.limits, "seed": seed, "surrogate": found.name}
        settings |= {"rules": [x.rule for x in self.graph.limits]} if self.graph.limits else {}
        if self.latency is not None and budget.latency is not None:
            settings["latency"] = self.latency.digest
        run = self.storage.run(settings)
        before = self._measuring.searched(run.before)
        steps = search(
            space, searching(found), seed=seed, limit=limit, before=before, patience=waits,
            **offered(space, self.objective),
        )  # fmt: skip
        with shown(progress) as callback:
            told = Teller(callback, space, limit)
            self.follow(steps, told)
        told.ended(patience is not None)

    def _searcher(self, surrogate: Any | None = None) -> Searcher:
        """A surrogate that is asked for, else that of the last run."""
        if surrogate is not None:
            found = searcher(surrogate)
            self._searchers[found.name] = found
            return found
        name = self._measuring.last_run()["surrogate"]
        return self._searchers.get(name) or recalled(name)

    def follow(self, steps: Questions, told: Told = silent) -> list[Evaluation]:
        """Measure what a search asks for, until it ends; what is known is not measured again.

        Returns:
            All that was asked for, in this order.
        """
        empty = self.graph.empty
        fresh = str(empty) not in self._measuring.known("search")

        def unpruned(record: Evaluation) -> None:
            if fresh and record.loss is not None:
                check_unpruned(self.graph, self.objective, record.loss, self.losses(empty))

        return self._measuring.follow(steps, told, unpruned)

    def plan(
        self, budget: Budget | float | str | None = None, *, finalists: int = 16,
        certify: int = 0, surrogate: Any | None = None, recovery: Recovery | None = None,
        progress: Callback | bool | None = None,
    ) -> Plan:  # fmt: skip
        """Choose a mask: finalists meet on the verify split, the winner on the report split.

        The best quarter of the finalists on the first quarter of the verify split, at least
        three, meet on the whole of it, as in successive halving (Jamieson & Talwalkar 2016).
        Where latency is limited, the winner's is measured on the real pruned model; if it misses
        the limit, the latency table is corrected by it and the choice made again, a few times.

        Args:
            budget: limits on what remains; by default those of the last run.
            finalists: how many masks are tried.
            certify: fresh random masks at the budget that are measured on the verify split beside
                the winner, to say how rare a better one is; see `Plan.certificate`. Decide on
                the number before looking at what it gives.
            surrogate: as for `run`; by default that of the last run, which has to be given again
                where it was a regressor of your own and another process ran.
            recovery: where the search measured without: the three best finalists and what scores of
                one pass chose are recovered, and the one that is best then, once more, wins.
            progress: called after every evaluation; True draws a bar, also in notebooks.

        Returns:
            The plan, with recovered tensors if the objective recovers.

        Raises:
            PlanError: there is nothing to choose from yet, or every finalist failed; random masks
                are to be measured, and there is no verify split; the last run's surrogate is not
                known here; or the objective recovers, too.
            BudgetError: the budget cannot be met.
        """
        check_count("finalists", finalists)
        check_count("certify", certify, 0)
        run = self._measuring.last_run()
        budget = as_budget(budget or Budget(**run["budget"]))
        planner = Planner(
            self.name, self._identity, self.graph, self.objective, self._measuring, self.latency,
            run, self._searcher(surrogate),
        )  # fmt: skip
        with shown(progress) as callback:
            return planner.plan(
                partial(self.space, budget), budget.latency,
                finalists=finalists, certify=certify, recovery=recovery, progress=callback,
            )  # fmt: skip

    def space(self, budget: Budget, times: OperatorTimes | None = None) -> Space:
        """The masks within a budget, of which there are some.

        Args:
            budget: limits on what remains.
            times: of the operators; by default those of the study's latency table.

        Raises:
            BudgetError: none was found; or latency is limited, and the study has no table.
        """
        if times is None and self.latency is not None and budget.latency is not None:
            times = self.latency.times(self.graph)
        space = Space(self.graph, budget, times=times)
        space.reachable()
        return space

    def pareto(
        self, budgets: Sequence[Budget] | None = None, *,
        objectives: Sequence[str] | None = None, time_limit: float | None = 10.0, seed: int = 0,
        surrogate: Any | None = None,
    ) -> list[Point]:  # fmt: skip
        """What all evaluations so far say is reachable at several budgets; nothing is measured.

        A surrogate's prediction of a mask that was chosen for it is often too good: run() with a
        budget of interest, and plan(), before it is believed.

        Args:
            budgets: limits on the same quantities; by default those of the last run, from 90 % of
                the unpruned network down to 20 %. What no mask meets is left out.
            time_limit: seconds of the solver for each budget; None waits for its proof, and the
                points depend on nothing but the evaluations.
            objectives: instead of budgets, two costs or more ("macs", "params", "latency", ...)
                that are traded off with predicted loss all at once, by NSGA-II (`[pareto]`).
            seed: of NSGA-II.
            surrogate: as for `plan`. Where no solver can minimise it, a descent looks instead.

        Returns:
            Points of which none is both dearer and predicted to be worse than another.

        Raises:
            PlanError: nothing has been evaluated yet, or the last run's surrogate is not known.
            BudgetError: no mask meets any of the budgets; or the objectives are none.
            EdgewiseError: there are objectives, and pymoo is not installed.

        Examples:
            >>> points = study.pareto([ew.Budget(macs=0.9), ew.Budget(macs=0.6)])
            >>> all(point.cost.macs <= 0.9 * ew.cost(graph).macs for point in points)
            True
        """
        knowledge, found = self._knowledge(), self._searcher(surrogate)
        return knowledge.pareto(found, budgets, objectives, time_limit, seed)

    @property
    def plot(self) -> Plot:
        """The study's plots: `study.plot.progress()` and others, see `Plot`."""
        return Plot(self._facts, self.pareto, self.interactions)

    def interactions(self, base: Mask | None = None) -> Interactions:
        """Which units hurt or help each other when both go, as all evaluations so far say.

        A Gaussian process on the graph is fitted, whatever surrogate searched; units whose single
        removal is fatal at the last run's budget are left out.

        Args:
            base: the mask around which units are removed and put back; by default nothing is
                removed.

        Raises:
            PlanError: nothing has been evaluated yet.

        Examples:
            >>> found = study.interactions()
            >>> len(found.units) <= len(graph.units)
            True
        """
        known = self._knowledge()
        return known.interactions(base or self.graph.empty, known.process())

    def insight(self, plan: Plan | None = None) -> Insight:
        """What a report shows beyond evaluations: the front, interactions and flows.

        Args:
            plan: around whose mask interactions are looked at.

        Raises:
            PlanError: nothing has been evaluated yet.
        """
        base = self.graph.mask(bits=plan.bits) if plan else self.graph.empty
        return self._knowledge().insight(base, self._searcher)

    def _facts(self) -> Facts:
        """What charts of the study show, at the budget of the last of its runs."""
        runs = self.storage.runs()
        insight = Insight(Budget(**runs[-1].settings["budget"])) if runs else Insight()
        return Facts(self.graph, self.evaluations, None, Outcome(), insight=insight)

    def _knowledge(self) -> Knowledge:
        return Knowledge.of(self.graph, self._measuring, self.latency)

    def verified(
        self, masks: Sequence[Mask], expected: Sequence[float], count: int, told: Teller
    ) -> Mask:
        """The best of `count` finalists on the verify split; the best expected without one."""
        return verified(self._measuring, masks, expected, count, told)[0]
