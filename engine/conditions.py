"""The conditions of an eligibility rule, checked against what the spec declares."""

from collections.abc import Callable

from engine.declarations import PredicateTable
from engine.encoding import ContextFeature, ContextSchema
from engine.errors import SpecError, nearest
from engine.guardrails import Predicate
from engine.journey import Fold

Fail = Callable[[str, str], SpecError]
"""(key, what is wrong with it) → the error to raise, which knows its place."""


def compile_predicate(declared: PredicateTable, fold: Fold, context: ContextSchema, fail: Fail) -> Predicate:
    """The condition as the guardrails take it. Raises SpecError for what is not declared or does not fit its type."""
    kinds = [k.name for k in fold.kinds]
    if declared.event is not None and declared.event not in kinds:
        raise fail("event", f"found {declared.event!r}, which is not declared{nearest(declared.event, kinds)}")
    one_of: tuple[float | bool | str, ...] | None = None
    if declared.is_ is not None:
        one_of = tuple(declared.is_) if isinstance(declared.is_, list) else (declared.is_,)
    if declared.feature is not None:
        if declared.feature not in context.index:
            found = f"found {declared.feature!r}, which is not declared"
            raise fail("feature", found + nearest(declared.feature, list(context.index)))
        feature = context.features[context.index[declared.feature]]
        _check_values(one_of or (), feature, fail)
        if feature.type != "number" and (declared.at_least is not None or declared.at_most is not None):
            raise fail("feature", f"{feature.name} is a {feature.type}; at_least and at_most are for numbers")
    return Predicate(
        declared.event,
        declared.within_days,
        declared.not_within_days,
        declared.feature,
        one_of,
        declared.at_least,
        declared.at_most,
    )


def _check_values(values: tuple[float | bool | str, ...], feature: ContextFeature, fail: Fail) -> None:
    name = feature.name
    for value in values:
        if feature.type == "category" and value not in feature.categories:
            close = nearest(str(value), feature.categories)
            raise fail("is", f"found {value!r}, no category of {name}{close}")
        if feature.type == "flag" and not isinstance(value, bool):
            raise fail("is", f"found {value!r}, expected true or false, as {name} is a flag")
        if feature.type == "number" and isinstance(value, bool | str):
            raise fail("is", f"found {value!r}, expected a number, as {name} is one")
