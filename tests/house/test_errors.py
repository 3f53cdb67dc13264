"""The tree of refusals is drawn as it is, and each of them says what, where and with which exit status."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from tnet_geo import errors
from tnet_geo.errors import TnetGeoError

CLASSES = [
    thing for _, thing in inspect.getmembers(errors, inspect.isclass) if issubclass(thing, TnetGeoError)
]
SPECIFIC = [thing for thing in CLASSES if "__init__" in vars(thing)]
EXIT_CODES = {1, 2, 3, 4, 6}


def example(thing: type[TnetGeoError]) -> TnetGeoError:
    """An error with a fact of its own in every place."""
    if thing not in SPECIFIC:
        return thing("Something is wrong with sites.csv: mend it.")
    parameters = list(inspect.signature(thing).parameters.values())
    return thing(*[f"<{p.name}>" if p.annotation == "str" else n + 41 for n, p in enumerate(parameters)])


def drawn() -> dict[str, str | None]:
    """Class to parent, as the picture at the head of the module has them."""
    parents: dict[str, str | None] = {"TnetGeoError": None}
    branch = "TnetGeoError"
    for bars, name in re.findall(r"^    ([| ]*)\+-- (\w+)", errors.__doc__ or "", flags=re.MULTILINE):
        parents[name] = branch if bars else "TnetGeoError"
        branch = branch if bars else name
    return parents


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    assert drawn() == {
        thing.__name__: None if thing is TnetGeoError else thing.__bases__[0].__name__ for thing in CLASSES
    }


def test_every_exit_status_of_the_picture_is_that_of_the_class() -> None:
    for name, code in re.findall(r"(\w+) +exit (\d)", errors.__doc__ or ""):
        assert getattr(errors, name).exit_code == int(code)


def test_all_errors_are_offered_in_order() -> None:
    assert errors.__all__ == sorted(thing.__name__ for thing in CLASSES)


@pytest.mark.parametrize("thing", CLASSES)
def test_an_error_has_an_exit_status_and_a_docstring(thing: type[TnetGeoError]) -> None:
    assert thing.exit_code in EXIT_CODES
    assert thing.__doc__


@pytest.mark.parametrize("thing", CLASSES)
def test_an_error_survives_the_way_between_processes(thing: type[TnetGeoError]) -> None:
    error = example(thing)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is thing
    assert str(again) == str(error)
    assert vars(again) == vars(error)


@pytest.mark.parametrize("thing", SPECIFIC)
def test_an_error_is_one_sentence_with_all_its_facts(thing: type[TnetGeoError]) -> None:
    error = example(thing)
    assert re.fullmatch(r"\S.*\.", str(error))
    assert not [fact for fact in error.args if str(fact) not in str(error)]
