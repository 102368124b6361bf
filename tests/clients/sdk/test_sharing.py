"""Lending secrets: by a link, and to somebody."""

import pytest
from support import client, in_an_hour, ok, refused


@pytest.fixture
def secret(owner, vault_id):
    return ok(owner.secrets.set(vault_id, "lent", "worth"), 201)


def test_a_link_opens_for_anybody_with_its_passphrase(owner, secret):
    share = ok(
        owner.sharing.create(
            secret["id"],
            recipient_type="anyone_with_link",
            expires_at=in_an_hour(),
            passphrase="open sesame",
            max_access_count=2,
        ),
        201,
    )
    assert share["share_url"].endswith(share["id"]) and share["max_access_count"] == 2
    nobody = client()
    refused(nobody.sharing.access(share["id"]), 403, "auth_error")
    refused(nobody.sharing.access(share["id"], "open barley"), 403, "auth_error")
    # The passphrase is the body of a GET.
    opened = ok(nobody.sharing.access(share["id"], "open sesame"))
    assert (opened["value"], opened["path"], opened["access_count"]) == ("worth", "lent", 1)
    assert ok(owner.sharing.access(share["id"], "open sesame"))["access_count"] == 2
    refused(nobody.sharing.access(share["id"], "open sesame"), 410, "unknown")


def test_a_share_with_an_agent_is_accepted_first(owner, agent, new_agent, secret):
    share = ok(
        owner.sharing.create(secret["id"], recipient_type="agent", recipient_id=agent.id, expires_at=in_an_hour()), 201
    )
    inbound = ok(agent.client.sharing.list_inbound())["shares"]
    assert [(each["id"], each["is_accepted"]) for each in inbound] == [(share["id"], False)]
    refused(agent.client.sharing.access(share["id"]), 404, "not_found")
    refused(new_agent().client.sharing.accept(share["id"]), 404, "not_found")
    ok(agent.client.sharing.accept(share["id"]), 204)
    assert ok(agent.client.sharing.access(share["id"]))["value"] == "worth"
    refused(new_agent().client.sharing.access(share["id"]), 404, "not_found")
    assert share["id"] in [each["id"] for each in ok(owner.sharing.list_outbound())["shares"]]
    ok(owner.sharing.revoke(share["id"]), 204)
    refused(agent.client.sharing.access(share["id"]), 404, "not_found")


def test_a_declined_share_is_gone(owner, agent, secret):
    share = ok(
        owner.sharing.create(secret["id"], recipient_type="agent", recipient_id=agent.id, expires_at=in_an_hour()), 201
    )
    ok(agent.client.sharing.decline(share["id"]), 204)
    refused(agent.client.sharing.accept(share["id"]), 410, "unknown")
    refused(agent.client.sharing.access(share["id"]), 404, "not_found")


def test_an_agent_lends_to_its_human_and_to_no_stranger(owner, agent):
    vault = ok(agent.client.vaults.create(f"vault of {agent.id}"), 201)
    secret = ok(agent.client.secrets.set(vault["id"], "found", "this"), 201)
    to_human = ok(
        agent.client.sharing.create(secret["id"], recipient_type="creator", expires_at=in_an_hour()), 201
    )
    assert to_human["id"] in [each["id"] for each in ok(owner.sharing.list_inbound())["shares"]]
    ok(owner.sharing.accept(to_human["id"]), 204)
    assert ok(owner.sharing.access(to_human["id"]))["value"] == "this"
    stranger = dict(recipient_type="external_email", email="x@example.test", expires_at=in_an_hour())
    refused(agent.client.sharing.create(secret["id"], **stranger), 403, "auth_error")
    ok(agent.client.sharing.delete(to_human["id"]), 204)
