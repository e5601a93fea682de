"""The commands about access: why somebody reaches something, what a change would do, what must stay true, who reaches
what. `wardgate explain` is the first of them without its noun.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from wardgate.admin.main import Context, Session, app, group
from wardgate.admin.words import cell
from wardgate.settings import one_of
from wardgate.text_tables import one_line

Actor = Annotated[str, typer.Argument(metavar="EMAIL", help="The actor's e-mail address, id or exact name.")]
Resource = Annotated[str, typer.Argument(metavar="RESOURCE", help="The resource's id or exact name.")]
At = Annotated[
    str | None,
    typer.Option("--at", help="Another time, as 14:21 (today) or 2026-11-26T14:21; in the past, the policies of then."),
]
From = Annotated[str | None, typer.Option("--from", help="Another address than the one the device was seen with.")]
Device = Annotated[str | None, typer.Option("--device", help="The client, by id or name; else the one seen last.")]
AsOf = Annotated[str | None, typer.Option("--as-of", help="A time in the past, whose policies are taken.")]


@app.command()
def explain(
    context: Context, actor: Actor, resource: Resource, at: At = None, origin: From = None, device: Device = None
) -> None:
    """Say whether a person can reach a resource, and everything that allows it or stands in its way."""
    explain_to(context.obj, actor, resource, at, origin, device)


def explain_to(
    session: Session, actor: str, resource: str, at: str | None, origin: str | None, device: str | None
) -> None:
    """Asks, and prints the answer."""
    query = {"actor": actor, "resource": resource, "at": parse_time("--at", at), "from": origin, "device": device}
    with session.rest() as rest:
        answer = rest.data("GET", "/explain", None, **query)
    if session.as_json:
        session.show(answer)
        return
    for line in explained(answer):
        print(one_line(line))


def explained(answer: dict[str, Any]) -> list[str]:
    """An explanation for people."""
    verb = "reaches" if answer["allowed"] else "does not reach"
    who, what = answer["actor"], answer["resource"]
    lines = [f"{'yes' if answer['allowed'] else 'no'}: {who['name']} {verb} {what['name']}"]
    lines += [f"  {one['text']}" for one in answer["reasons"]]
    seen = answer["circumstances"]
    device = answer["device"]["name"] if answer["device"] else "no client yet"
    place = f"{seen['remote_ip'] or 'an unknown address'} ({seen['region'] or 'place unknown'})"
    lines.append(f"at {seen['at']}, from {place}, {device}, {'verified' if seen['is_verified'] else 'not verified'}")
    if answer["as_of"]:
        lines.append(f"by the policies of {answer['as_of']}")
    lines.append(f"groups: {', '.join(one['name'] for one in who['groups']) or 'none'}")
    for policy in answer["policies"]:
        name = policy["group"]["name"] if policy["group"] else "a deleted group"
        lines.append(f"policy {policy['id']} for {name}: {policy['state'].replace('_', ' ')}")
        lines += [f"  {_condition(one)}" for one in policy["conditions"]]
    if answer["decided_by"]:
        lines.append(f"a grant lasts {'until ' + answer['expires_at'] if answer['expires_at'] else 'without end'}")
    return lines + _gateways(answer) + _history(answer)


def _condition(one: dict[str, Any]) -> str:
    end = f", until {one['until']}" if one["until"] else f", opens at {one['opens_at']}" if one["opens_at"] else ""
    wants = f"{one['property']} {one['operator']} {'; '.join(one['values'])}"
    return f"{'holds' if one['holds'] else 'FAILS'}: {wants} (was {one['seen'] or 'unknown'}{end})"


def _gateways(answer: dict[str, Any]) -> list[str]:
    lines = []
    for one in answer["gateways"]:
        state = "offline"
        if one["is_online"]:
            state = "online" if one["is_compatible"] else "online, but not compatible"
        lines.append(f"gateway {one['name'] or one['id']}: {state}{', may be chosen' if one['is_candidate'] else ''}")
    return lines


def _history(answer: dict[str, Any]) -> list[str]:
    lines = []
    grant, refusal = answer["authorization"], answer["last_refusal"]
    if grant:
        lines.append(f"authorization {grant['id']} lasts until {grant['expires_at']}")
    if refusal:
        why = ", ".join([refusal["reason"], *refusal["violated_properties"]])
        lines.append(f"last refused at {refusal['at']}: {why} ({refusal['count']} in all)")
    words = {
        "wait": "wait until {at}: the policy for {group} opens",
        "join_group": "put them into {group}",
        "enable_policy": "switch the policy for {group} on",
        "verify_client": "verify the client: the policy for {group} asks for it",
    }
    for one in answer["hints"]:
        name = one["group"]["name"] if one["group"] else "a deleted group"
        lines.append("would let them in: " + words[one["kind"]].format(at=one["at"], group=name))
    return lines


def parse_time(option: str, text: str | None) -> str | None:
    """A time as people type it; without a zone it is one of this machine."""
    if text is None:
        return None
    try:
        today = datetime.now(UTC).astimezone().date()
        at = datetime.fromisoformat(f"{today}T{text}" if len(text) <= 8 and ":" in text else text)
    except ValueError:
        why = f"{text!r} is not a time as 14:21, 2026-11-26T14:21 or 2026-11-26T14:21+01:00"
        raise typer.BadParameter(why, param_hint=option) from None
    return at.astimezone().isoformat()


# --- what a change would do -------------------------------------------------------------------------------------------


@app.command()
def preview(
    context: Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON: {method, path, body} or {changes: [...]}; - reads it.")
    ],
    as_of: AsOf = None,
) -> None:
    """Say who would gain or lose access by a change, before it is made, and which policy tests it would break."""
    session: Session = context.obj
    body = _read(file)
    if as_of is not None:
        body["as_of"] = parse_time("--as-of", as_of)
    with session.rest() as rest:
        pages = list(rest.posted_pages("/preview", body))
    answer = pages[0]
    answer["changes"] = [one for page in pages for one in page["changes"]]
    if session.as_json:
        session.show(answer)
        return
    pairs = {kind.replace("_", " "): count for kind, count in answer["pairs"].items() if count}
    print(", ".join(f"{count} {kind}" for kind, count in pairs.items()) or "nobody's access changes")
    if answer["ended_authorizations"]:
        print(f"ends {answer['ended_authorizations']} authorizations now")
    for one in answer["tests"]:
        print(one_line(f"policy test {one['name']!r}: {one['state'].replace('_', ' ')}"))
    rows = [
        {**one, "actor": one["actor"]["name"], "resource": one["resource"]["name"], **_hours(one)}
        for one in answer["changes"]
    ]
    if rows:
        session.table(rows, ["kind", "actor", "resource", "hours lost", "hours gained"])


def _hours(one: dict[str, Any]) -> dict[str, str | None]:
    return {
        f"hours {word}": ", ".join(one[f"hours_{word}"]["windows"]) + f" {one[f'hours_{word}']['zone']}"
        if one[f"hours_{word}"] and not one[f"hours_{word}"]["is_always"]
        else None
        for word in ("lost", "gained")
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}", param_hint="FILE") from None
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{file} is not a JSON object", param_hint="FILE")
    return found


# --- what must stay true ----------------------------------------------------------------------------------------------

policy_tests = group("policy-tests", "What must stay true of access; a change that breaks it is refused.")
TestName = Annotated[str, typer.Argument(metavar="TEST", help="By id or name.")]


@policy_tests.command("list")
def policy_tests_list(context: Context) -> None:
    """List policy tests."""
    session: Session = context.obj
    with session.rest() as rest:
        rows = list(rest.all("/policy_tests"))
        session.table(
            rows, ["id", "name", "who", "expectation", "resource", "at", "from", "is_enabled", "broken_reason"]
        )


@policy_tests.command("create")
def policy_tests_create(
    context: Context,
    name: str,
    who: Annotated[str, typer.Option("--who", help="everyone, anyone, group:NAME or actor:EMAIL.")],
    resource: Annotated[str, typer.Option("--resource", help="An id, or a pattern of names as payments*.")],
    expectation: Annotated[
        str,
        typer.Option("--expect", callback=one_of("reaches", "never_reaches"), help="reaches or never_reaches."),
    ],
    moment: Annotated[str | None, typer.Option("--moment", help="As MTWRFSU/03:00/Europe/Berlin; else always.")] = None,
    address: Annotated[str | None, typer.Option("--from", help="From this address; else from any.")] = None,
    region: Annotated[str | None, typer.Option("--region", help="From this country; else from any.")] = None,
) -> None:
    """Make a policy test, and say whether it holds."""
    session: Session = context.obj
    body: dict[str, Any] = {"name": name, "who": who, "resource": resource, "expectation": expectation}
    if moment is not None:
        days, clock, zone = [*moment.split("/", 2), "", ""][:3]
        body["at"] = {"days": days, "time": clock, "zone": zone or "UTC"}
    origin = {"remote_ip": address, "region": region}
    body |= {"from": {name: value for name, value in origin.items() if value}} if address or region else {}
    with session.rest() as rest:
        _show_results(session, [rest.data("POST", "/policy_tests", {"policy_test": body})])


@policy_tests.command("run")
def policy_tests_run(context: Context, as_of: AsOf = None) -> None:
    """Run all policy tests; the status is 1 if one that is switched on does not hold."""
    session: Session = context.obj
    with session.rest() as rest:
        results = rest.data("POST", "/policy_tests/run", {"as_of": parse_time("--as-of", as_of)})
    _show_results(session, results)
    if any(not one["holds"] and one["test"]["is_enabled"] for one in results):
        raise typer.Exit(1)


@policy_tests.command("enable")
def policy_tests_enable(context: Context, test: TestName) -> None:
    """Switch a policy test on."""
    _switch(context.obj, test, True)


@policy_tests.command("disable")
def policy_tests_disable(context: Context, test: TestName) -> None:
    """Switch a policy test off."""
    _switch(context.obj, test, False)


@policy_tests.command("delete")
def policy_tests_delete(context: Context, test: TestName) -> None:
    """Delete a policy test."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("DELETE", f"/policy_tests/{rest.find('/policy_tests', test)['id']}"))


def _switch(session: Session, test: str, is_enabled: bool) -> None:
    with session.rest() as rest:
        path = f"/policy_tests/{rest.find('/policy_tests', test)['id']}"
        _show_results(session, [rest.data("PATCH", path, {"policy_test": {"is_enabled": is_enabled}})])


def _show_results(session: Session, results: list[dict[str, Any]]) -> None:
    if session.as_json:
        session.show(results)
        return
    for one in results:
        state = "holds" if one["holds"] else f"DOES NOT HOLD for {one['count']}"
        switched = "" if one["test"]["is_enabled"] else " (switched off)"
        print(one_line(f"{state}: {one['test']['name']}{switched}"))
        for example in one["examples"]:
            names = (example["actor_name"] or "nobody", example["resource_name"] or "nothing")
            print(one_line(f"  {cell(names[0], 'actor')} and {cell(names[1], 'resource')}"))


# --- who reaches what -------------------------------------------------------------------------------------------------


@app.command()
def reach(
    context: Context,
    actor: Annotated[str | None, typer.Option("--actor", help="What this actor reaches.")] = None,
    group_name: Annotated[str | None, typer.Option("--group", help="What this group's policies allow.")] = None,
    resource: Annotated[str | None, typer.Option("--resource", help="Who reaches this resource.")] = None,
    site: Annotated[str | None, typer.Option("--site", help="Who reaches resources of this site.")] = None,
    as_of: AsOf = None,
) -> None:
    """List who reaches what, by which policies; at least one of the options is needed."""
    session: Session = context.obj
    asked = (
        ("/actors", "actor", actor),
        ("/groups", "group", group_name),
        ("/resources", "resource", resource),
        ("/sites", "site", site),
    )
    with session.rest() as rest:
        query: dict[str, str | None] = {noun: rest.find(path, name)["id"] for path, noun, name in asked if name}
        query["as_of"] = parse_time("--as-of", as_of)
        rows = list(rest.all("/reach", **query))
    if session.as_json:
        session.show(rows)
        return
    shown = [
        {
            **{noun: one[noun]["name"] if one[noun] else None for noun in ("actor", "resource", "site")},
            "through": ", ".join(policy["group"]["name"] for policy in one["policies"]),
            "when": "always" if one["is_always"] else "with conditions",
        }
        for one in rows
    ]
    session.table(shown, ["actor", "resource", "site", "when", "through"])
