"""What is asked often is found by an index, on both databases."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event

from tests.unit.portal.helpers import Lab
from tests.unit.portal.sockets.harness import PortalUnderTest
from wardgate.portal.db import access, authorizations, devices
from wardgate.portal.db.engine import Database
from wardgate.portal.db.tables import Actor
from wardgate.portal.services import policies, tokens
from wardgate.wire import portal

ALWAYS_SMALL = {"outbox_state", "jobs", "accounts", "relay_tokens", "alembic_version", "secret_keys"}


async def test_no_query_of_devices_and_of_their_grants_reads_a_whole_table(server: PortalUnderTest, lab: Lab) -> None:
    assert lab.policy is not None
    with recorded(server.hub.db) as statements:
        gateway, client = await server.gateway(lab), await server.client(lab)
        await client.take(portal.ClientInit)
        await client.send(
            portal.RequestAuthorization.model_validate({"resource_id": lab.resource.id, "connected_gateway_ids": []})
        )
        await gateway.take(portal.CreateAuthorization)
        async with server.hub.db.writing(lab.subject) as unit:
            await policies.update_policy(unit, lab.policy.id, {"description": "new", "conditions": []})
            await policies.delete_policy(unit, lab.policy.id)
        await gateway.take(portal.RejectAccess)
        await server.refreshed()
        await look_around(server.hub.db, lab)
        async with server.hub.db.writing(lab.subject) as unit:
            await tokens.delete_client_token(unit, lab.actor.id, lab.client_token_id)

    assert len(statements) > 20
    assert await server.hub.db.snapshot(lambda connection: scans(connection, statements)) == []


async def look_around(db: Database, lab: Lab) -> None:
    """Further questions of the data plane."""
    async with db.writing(lab.subject) as unit:
        actor = await unit.get(Actor, lab.actor.id)
        await access.rules_of_actor(unit, actor, lab.resource.id)
        await access.policies_about(unit, actor, lab.resource.id)
        await access.groups_of_resources(unit, [lab.resource.id])
        await access.actors_of_groups(unit, [lab.group.id])
        await devices.latest_client(unit, lab.actor.id)
        await devices.find_by_address(unit, "100.64.0.1")
        await devices.find_by_hostname(unit, "laptop")
        await authorizations.pasts_of(unit, {lab.actor.id: "key"}, unit.at)
        await authorizations.ending_before(unit, lab.actor.id, unit.at)
        await authorizations.of_receiver(unit, lab.actor.id, unit.at)
        for column in ("token_id", "policy_id", "resource_id", "membership_id", "initiating_device_id"):
            await authorizations.delete_where(unit, **{column: lab.actor.id})


@contextmanager
def recorded(db: Database) -> Iterator[dict[str, Any]]:
    """Every statement that reads or changes rows, with the parameters that it had last."""
    statements: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if re.match(r"(SELECT|UPDATE|DELETE)\b", statement) and " FROM " in statement.replace("\n", " ") and not many:
            statements[statement] = parameters

    engine = db._engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


def scans(connection: Connection, statements: dict[str, Any]) -> list[tuple[str, str]]:
    """Tables that a statement reads from one end to the other, and the statement."""
    is_sqlite = connection.dialect.name == "sqlite"
    if not is_sqlite:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # on tables this small it is always faster
    found = []
    for statement, parameters in statements.items():
        plan = connection.exec_driver_sql(
            ("EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN ") + statement, parameters
        ).fetchall()
        for line in (str(row[-1]) for row in plan):
            scanned = re.search(r"^SCAN (\w+)" if is_sqlite else r"Seq Scan on (\w+)", line)
            if scanned and scanned[1] not in ALWAYS_SMALL:
                found.append((scanned[1], " ".join(statement.split())))
    return found
