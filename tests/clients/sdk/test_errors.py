"""Each class of error that the SDK knows, out of the daemon's own replies."""

import os

import oneclaw
import pytest
from oneclaw import AuthError, NotFoundError, OneclawError, RateLimitError, ResourceLimitExceededError, ValidationError
from support import client, named, ok, refused


@pytest.mark.parametrize(
    ("method", "path", "body", "error", "status"),
    [
        ("POST", "/v1/vaults", {"name": ""}, ValidationError, 400),
        ("POST", "/v1/vaults", {"name": 7}, ValidationError, 400),
        ("GET", "/v1/agents/me", None, AuthError, 403),
        ("GET", "/v1/vaults/7b5b2b0e-9e63-4a3c-8b43-9a1a2a4b1c11", None, NotFoundError, 404),
        ("GET", "/v1/vaults/no-id", None, OneclawError, (400, 404)),
        ("GET", "/v1/no/such/route", None, NotFoundError, 404),
        ("PATCH", "/v1/vaults", {}, OneclawError, 405),
    ],
)
def test_a_problem_is_raised_as_its_class(owner, method, path, body, error, status):
    with pytest.raises(error) as raised:
        owner._http.request_or_throw(method, path, body=body)
    assert raised.value.status in (status if isinstance(status, tuple) else (status,))
    assert not str(raised.value).startswith("HTTP "), "the problem has no detail"


def test_nobody_is_told_to_authenticate():
    for nobody in (client(), client(token="no token"), client(token="a.b.c")):
        with pytest.raises(AuthError) as raised:
            nobody._http.request_or_throw("GET", "/v1/vaults")
        assert raised.value.status == 401


def test_bodies_that_are_too_large_are_413(owner, vault_id):
    refused(owner.secrets.set(vault_id, "large", "x" * (5 * 1024 * 1024 + 1)), 413, "unknown")


def test_nothing_at_the_address_is_a_network_error():
    gone = oneclaw.create_client(base_url="http://127.0.0.1:9", token="t")
    assert gone.vaults.list().error.type == "network_error"


@pytest.mark.skipif("INTENTD_LIMITED_USER_KEY" not in os.environ, reason="nobody here has a limit")
def test_a_limit_of_the_organisation_is_a_class_of_its_own():
    limited = client(os.environ["INTENTD_LIMITED_USER_KEY"])
    ok(limited.vaults.create(named("vault")), 201)
    message = refused(limited.vaults.create(named("vault")), 403, "resource_limit_exceeded")
    assert "Vault limit" in message
    with pytest.raises(ResourceLimitExceededError):
        limited._http.request_or_throw("POST", "/v1/vaults", body={"name": named("vault")})


@pytest.mark.skipif("INTENTD_SLOW_URL" not in os.environ, reason="no daemon with small limits")
def test_too_much_says_when_to_come_back():
    slow = oneclaw.create_client(base_url=os.environ["INTENTD_SLOW_URL"])
    login = ("nobody@example.test", "no password")
    while (reply := slow.auth.login(*login)).meta.status != 429:
        refused(reply, 401, "auth_error")
    refused(reply, 429, "rate_limit")
    with pytest.raises(RateLimitError) as raised:
        while True:
            slow._http.request_or_throw("POST", "/v1/auth/agent-token", body={"api_key": "ocv_" + "A" * 43})
    assert raised.value.retry_after_ms >= 1000 and raised.value.retry_after_ms % 1000 == 0
