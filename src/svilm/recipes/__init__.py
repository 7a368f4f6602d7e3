"""Recipes: Python functions that return a Run.  Each one's docstring says the command and what to expect."""

import difflib
import importlib
from collections.abc import Callable

from svilm.config import ConfigError
from svilm.recipes import downstream, pretrain
from svilm.run import Run

RECIPES: dict[str, Callable[[], Run]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        pretrain.tiny,
        pretrain.tiny_regions,
        pretrain.tiny_contrastive,
        pretrain.tiny_grounding,
        pretrain.tiny_grouping,
        pretrain.tiny_half_frames,
        pretrain.small,
        pretrain.paper,
        pretrain.paper_literal,
        pretrain.paper_contrastive,
        pretrain.paper_grounding,
        pretrain.paper_grouping,
        pretrain.paper_regions,
        pretrain.paper_16_frames,
        downstream.msrvtt,
        downstream.msrvtt_qa,
        downstream.msvd_qa,
        downstream.ucf101,
        downstream.ucf101_linear,
        downstream.hmdb51,
        downstream.hmdb51_linear,
        downstream.activitynet,
        downstream.thumos14,
        downstream.ava,
        downstream.ucf101_16_frames,
        downstream.ucf101_linear_16_frames,
        downstream.tiny_retrieval,
        downstream.tiny_qa,
        downstream.tiny_recognition,
        downstream.tiny_linear,
        downstream.tiny_localization,
        downstream.tiny_ava,
        downstream.tiny_recognition_half_frames,
        downstream.tiny_linear_half_frames,
    )
}
"""All recipes by name."""


def recipe(name: str) -> Run:
    """The run of a recipe; ``my_package.my_module:function`` names one outside of svilm.

    Raises ConfigError for an unknown name, with the nearest known one.
    """
    module, colon, function = name.partition(":")
    if colon:
        return _outside(module, function)
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"no recipe {name!r}; {hint}known: {', '.join(RECIPES)}")
    return RECIPES[name]()


def _outside(module: str, function: str) -> Run:
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise ConfigError(f"no module {module!r} for recipe {module}:{function}") from None
    run = found() if callable(found) else None
    if not isinstance(run, Run):
        raise ConfigError(f"{module}:{function} must be a function that returns a Run")
    return run
