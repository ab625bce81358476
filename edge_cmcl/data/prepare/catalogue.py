"""The public data sets that `prepare` knows."""

from __future__ import annotations

from edge_cmcl.data.prepare import borealtc, hydraulic, isl_myo, sisfall, sp_sw_har, utd_mhad
from edge_cmcl.data.prepare.recipe import DatasetInfo, Recipe
from edge_cmcl.errors import UsageError

_RECIPES = {
    recipe.info.name: recipe
    for recipe in (
        utd_mhad.RECIPE,
        sisfall.RECIPE,
        isl_myo.RECIPE,
        sp_sw_har.RECIPE,
        borealtc.RECIPE,
        hydraulic.RECIPE,
    )
}


def catalogue() -> tuple[DatasetInfo, ...]:
    """Return the data sets in the order of the 11-step stream (design.md section 8)."""
    return tuple(recipe.info for recipe in _RECIPES.values())


def recipe_of(name: str) -> Recipe:
    """Return the recipe of a data set.

    Raises:
        UsageError: there is no such data set.
    """
    if name not in _RECIPES:
        raise UsageError(f"no data set is called {name!r}", expected=f"one of {', '.join(_RECIPES)}")
    return _RECIPES[name]
