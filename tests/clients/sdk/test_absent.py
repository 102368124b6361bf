"""What the SDK has beyond this daemon ends in its NotFoundError, and is listed in absent.toml; everything else finds a route."""

import inspect
import tomllib
import uuid
from pathlib import Path

import pytest
from oneclaw import NotFoundError
from support import client

with open(Path(__file__).with_name("absent.toml"), "rb") as file:
    GROUPS = tomllib.load(file)
ABSENT = {name for group in GROUPS.values() for name in group["calls"]}


def resources(any_client):
    return {name: value for name, value in vars(any_client).items() if not name.startswith("_")}


def every_call():
    """`resource.method` of the whole SDK."""
    for name, resource in resources(client()).items():
        for method, _ in inspect.getmembers(resource, inspect.ismethod):
            if not method.startswith("_"):
                yield f"{name}.{method}"


def group_of(call):
    """The group of the list that has this call, if one has."""
    names = (call, f"{call.split('.')[0]}.*")
    return next((group for group in GROUPS.values() if any(name in group["calls"] for name in names)), None)


def sample(parameter):
    """A value of about the right type."""
    if parameter.name.endswith("_id"):
        return str(uuid.uuid4())
    kind = str(parameter.annotation)
    for word, value in (("dict", {}), ("list", []), ("int", 1), ("float", 1.0), ("bool", False)):
        if word in kind:
            return value
    return "x"


def answer(any_client, call):
    """The error that a call ends in, given samples of what it requires."""
    resource, method = call.split(".")
    method = getattr(resources(any_client)[resource], method)
    arguments = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty and p.kind != p.VAR_KEYWORD]
    positional = [sample(p) for p in arguments if p.kind != p.KEYWORD_ONLY]
    response = method(*positional, **{p.name: sample(p) for p in arguments if p.kind == p.KEYWORD_ONLY})
    return response.meta.status, response.error


CALLS = sorted(every_call())


def test_the_list_names_calls_of_the_sdk_with_reasons():
    assert [name for name in ABSENT if name not in CALLS and not (name.endswith(".*") and hasattr(client(), name[:-2]))] == []
    assert all(group["reason"] for group in GROUPS.values())


def test_what_is_not_there_ends_in_not_found(owner):
    wrong = {}
    for call in filter(group_of, CALLS):
        status, error = answer(owner, call)
        expected = group_of(call).get("statuses", [404])
        if status not in expected or error.message.startswith("HTTP ") or (status == 404) != (error.type == "not_found"):
            wrong[call] = (status, error)
    assert wrong == {}


def test_what_is_there_has_a_route():
    # Without a credential, so nothing happens behind it.
    nobody, wrong = client(), {}
    for call in CALLS:
        status, error = answer(nobody, call)
        if not group_of(call) and (status == 405 or (error and error.message.startswith("no route"))):
            wrong[call] = (status, error)
    assert wrong == {}


def test_not_found_is_raised_as_its_class(owner):
    with pytest.raises(NotFoundError, match="no route GET /v1/treasury"):
        owner._http.request_or_throw("GET", "/v1/treasury")
