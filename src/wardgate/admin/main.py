"""The `wardgate admin` commands: a command group for each noun of the REST API.

Things are named by id or by their exact name. `--json` prints the API's own objects.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from wardgate.admin.rest import ApiProblem, RestClient, check_url, is_uuid, read_token
from wardgate.admin.words import cell, parse_condition, parse_duration, parse_filter
from wardgate.errors import SettingError
from wardgate.settings import one_of
from wardgate.text_tables import table_lines

app = typer.Typer(
    help="Manage an account through the portal's REST API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@dataclass
class Session:
    """What the options before the command said."""

    url: str
    token_file: Path | None
    as_json: bool
    force_reason: str | None = None

    @contextmanager
    def rest(self) -> Iterator[RestClient]:
        """Gives a client; ends the program with a clear line if the portal refuses."""
        try:
            with RestClient(self.url, read_token(self.token_file), force_reason=self.force_reason) as client:
                yield client
        except SettingError as error:
            print(f"wardgate admin: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
        except ApiProblem as error:
            print(f"wardgate admin: {error}", file=sys.stderr)
            raise typer.Exit(1) from None

    def show(self, row: Any) -> None:
        """Prints one object."""
        if self.as_json or not isinstance(row, dict):
            print(json.dumps(row, indent=2))
            return
        for key, value in row.items():
            print(f"{key + ':':<28}{cell(value, key)}")

    def table(self, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
        """Prints a list."""
        if self.as_json:
            print(json.dumps(list(rows), indent=2))
            return
        for line in table_lines(columns, [[cell(row.get(column), column) for column in columns] for row in rows]):
            print(line)

    def named(self, rest: RestClient, rows: Sequence[dict[str, Any]], **paths: str) -> Sequence[dict[str, Any]]:
        """Adds, for people, the names of things that rows name by id: `group="/groups"` makes `group` of `group_id`."""
        if self.as_json:
            return rows
        names = {noun: {row["id"]: row["name"] for row in rest.all(path)} for noun, path in paths.items()}
        return [
            {**row, **{noun: known.get(row[f"{noun}_id"], row[f"{noun}_id"]) for noun, known in names.items()}}
            for row in rows
        ]


@app.callback()
def options(
    context: typer.Context,
    url: Annotated[
        str, typer.Option("--url", envvar=["WARDGATE_ADMIN_URL"], help="The portal, as http(s)://host[:port].")
    ] = "http://127.0.0.1:8080",
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            envvar=["WARDGATE_API_TOKEN_FILE"],
            help="A file, yours alone, with the API token; else WARDGATE_API_TOKEN.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the API's objects as JSON.")] = False,
    force_reason: Annotated[
        str | None, typer.Option("--force-reason", help="Why a change may break a policy test; it is kept.")
    ] = None,
) -> None:
    """Reads the options that all commands share."""
    try:
        check_url(url)
    except SettingError as error:
        print(f"wardgate admin: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    context.obj = Session(url, token_file, as_json, force_reason)


def group(name: str, text: str) -> typer.Typer:
    """A group of commands for one noun."""
    made = typer.Typer(help=text, no_args_is_help=True)
    app.add_typer(made, name=name)
    return made


def _check_id(text: str) -> str:
    if not is_uuid(text):
        raise typer.BadParameter(f"{text!r} is no id; the list command shows them")
    return text


Context = typer.Context
PolicyId = Annotated[str, typer.Argument(callback=_check_id, help="The policy's id.")]
TokenId = Annotated[str, typer.Argument(callback=_check_id, help="The token's id.")]
Filters = Annotated[
    list[str] | None,
    typer.Option("--filter", help="What is allowed, as in tcp:80,443; repeat it; none means everything."),
]
Conditions = Annotated[
    list[str] | None, typer.Option("--condition", help="A limit, as in remote_ip:is_in_cidr:10.0.0.0/8; repeat it.")
]

# --- account ---


@app.command()
def account(context: Context) -> None:
    """Show the account of the token."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("GET", "/account"))


# --- sites ---

sites = group("sites", "Named groups of gateways that reach the same network.")


@sites.command("list")
def sites_list(context: Context) -> None:
    """List sites."""
    session: Session = context.obj
    with session.rest() as rest:
        session.table(list(rest.all("/sites")), ["id", "name"])


@sites.command("create")
def sites_create(context: Context, name: str) -> None:
    """Make a site."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("POST", "/sites", {"site": {"name": name}}))


@sites.command("rename")
def sites_rename(context: Context, site: str, name: str) -> None:
    """Give a site another name."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("PATCH", f"/sites/{rest.find('/sites', site)['id']}", {"site": {"name": name}}))


@sites.command("delete")
def sites_delete(context: Context, site: str) -> None:
    """Delete a site with its gateways, tokens and resources."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("DELETE", f"/sites/{rest.find('/sites', site)['id']}"))


# --- gateways ---

gateways = group("gateways", "The ends in front of the resources.")
Site = Annotated[str, typer.Option("--site", help="The site, by id or name.")]


@gateways.command("list")
def gateways_list(context: Context, site: Site) -> None:
    """List the gateways of a site."""
    session: Session = context.obj
    with session.rest() as rest:
        rows = list(rest.all(f"/sites/{rest.find('/sites', site)['id']}/gateways"))
        session.table(rows, ["id", "name", "online", "ipv4", "ipv6", "last_seen_version", "last_seen_at"])


@gateways.command("provision")
def gateways_provision(
    context: Context, site: Site, name: Annotated[str | None, typer.Option("--name", help="Else it is made up.")] = None
) -> None:
    """Make a gateway with a token for it alone; the token is shown once."""
    session: Session = context.obj
    with session.rest() as rest:
        path = f"/sites/{rest.find('/sites', site)['id']}/gateways"
        session.show(rest.data("POST", path, {"gateway": {"name": name} if name else {}}))


@gateways.command("rotate-token")
def gateways_rotate(context: Context, site: Site, gateway: str) -> None:
    """Make another token; the old one works until the new one is used, at most four hours."""
    session: Session = context.obj
    with session.rest() as rest:
        path = f"/sites/{rest.find('/sites', site)['id']}/gateways"
        session.show(rest.data("POST", f"{path}/{rest.find(path, gateway)['id']}/token/rotate"))


@gateways.command("delete")
def gateways_delete(context: Context, site: Site, gateway: str) -> None:
    """Delete a gateway."""
    session: Session = context.obj
    with session.rest() as rest:
        path = f"/sites/{rest.find('/sites', site)['id']}/gateways"
        session.show(rest.data("DELETE", f"{path}/{rest.find(path, gateway)['id']}"))


gateway_tokens = group("gateway-tokens", "Tokens of a site, good for any number of gateways.")


@gateway_tokens.command("create")
def gateway_tokens_create(context: Context, site: Site) -> None:
    """Make a token; it is shown once."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("POST", f"/sites/{rest.find('/sites', site)['id']}/gateway_tokens"))


@gateway_tokens.command("revoke")
def gateway_tokens_revoke(context: Context, site: Site, token_id: TokenId) -> None:
    """Delete a token; gateways that joined with it are disconnected."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("DELETE", f"/sites/{rest.find('/sites', site)['id']}/gateway_tokens/{token_id}"))


# --- groups ---

groups = group("groups", "Sets of people and service accounts.")


@groups.command("list")
def groups_list(context: Context) -> None:
    """List groups."""
    session: Session = context.obj
    with session.rest() as rest:
        session.table(list(rest.all("/groups")), ["id", "name", "entity_type", "directory_id"])


@groups.command("create")
def groups_create(context: Context, name: str) -> None:
    """Make a group."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("POST", "/groups", {"group": {"name": name}}))


@groups.command("delete")
def groups_delete(context: Context, group: str) -> None:
    """Delete a group; its policies stay, but grant nothing."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("DELETE", f"/groups/{rest.find('/groups', group)['id']}"))


@groups.command("members")
def groups_members(context: Context, group: str) -> None:
    """List who is in a group."""
    session: Session = context.obj
    with session.rest() as rest:
        rows = list(rest.all(f"/groups/{rest.find('/groups', group)['id']}/memberships"))
        session.table(rows, ["id", "name", "type"])


@groups.command("add")
def groups_add(context: Context, group: str, actors: list[str]) -> None:
    """Put people into a group."""
    _change_members(context, group, "add", actors)


@groups.command("remove")
def groups_remove(context: Context, group: str, actors: list[str]) -> None:
    """Take people out of a group."""
    _change_members(context, group, "remove", actors)


def _change_members(context: Context, group: str, change: str, actors: list[str]) -> None:
    session: Session = context.obj
    with session.rest() as rest:
        ids = [rest.find("/actors", actor)["id"] for actor in actors]
        path = f"/groups/{rest.find('/groups', group)['id']}/memberships"
        session.show(rest.data("PATCH", path, {"memberships": {change: ids}}))


# --- actors ---

actors = group("actors", "People, service accounts and API clients.")


@actors.command("list")
def actors_list(context: Context) -> None:
    """List actors."""
    session: Session = context.obj
    with session.rest() as rest:
        session.table(list(rest.all("/actors")), ["id", "name", "type", "email", "is_disabled", "last_seen_at"])


@actors.command("create")
def actors_create(
    context: Context,
    name: str,
    kind: Annotated[
        str,
        typer.Option(
            "--type",
            callback=one_of("account_user", "account_admin_user", "service_account"),
            help="account_user, account_admin_user or service_account.",
        ),
    ] = "account_user",
    email: Annotated[str | None, typer.Option("--email", help="Needed for people.")] = None,
) -> None:
    """Make a person or a service account."""
    session: Session = context.obj
    with session.rest() as rest:
        actor = {"name": name, "type": kind} | ({"email": email} if email else {})
        session.show(rest.data("POST", "/actors", {"actor": actor}))


@actors.command("disable")
def actors_disable(context: Context, actor: str) -> None:
    """Disable an actor: tokens and sessions end at once."""
    _set_actor(context, actor, True)


@actors.command("enable")
def actors_enable(context: Context, actor: str) -> None:
    """Enable an actor again."""
    _set_actor(context, actor, False)


def _set_actor(context: Context, actor: str, is_disabled: bool) -> None:
    session: Session = context.obj
    with session.rest() as rest:
        path = f"/actors/{rest.find('/actors', actor)['id']}"
        session.show(rest.data("PATCH", path, {"actor": {"is_disabled": is_disabled}}))


@actors.command("delete")
def actors_delete(context: Context, actor: str) -> None:
    """Delete an actor with its devices, tokens and memberships."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("DELETE", f"/actors/{rest.find('/actors', actor)['id']}"))


client_tokens = group("client-tokens", "Tokens of service accounts, for headless clients.")


@client_tokens.command("list")
def client_tokens_list(context: Context, actor: str) -> None:
    """List the tokens of a service account."""
    session: Session = context.obj
    with session.rest() as rest:
        rows = list(rest.all(f"/actors/{rest.find('/actors', actor)['id']}/client_tokens"))
        session.table(rows, ["id", "expires_at", "inserted_at"])


@client_tokens.command("create")
def client_tokens_create(
    context: Context,
    actor: str,
    expires_in: Annotated[str, typer.Option("--expires-in", help="As in 12h or 365d.")] = "365d",
) -> None:
    """Make a token for a service account; it is shown once."""
    session: Session = context.obj
    expires_at = (datetime.now(UTC) + parse_duration(expires_in)).isoformat()
    with session.rest() as rest:
        path = f"/actors/{rest.find('/actors', actor)['id']}/client_tokens"
        session.show(rest.data("POST", path, {"client_token": {"expires_at": expires_at}}))


@client_tokens.command("revoke")
def client_tokens_revoke(context: Context, actor: str, token_id: TokenId) -> None:
    """Delete a token; clients that use it are signed out at once."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("DELETE", f"/actors/{rest.find('/actors', actor)['id']}/client_tokens/{token_id}"))


# --- resources ---

resources = group("resources", "Addresses behind a site.")


@resources.command("list")
def resources_list(context: Context) -> None:
    """List resources."""
    session: Session = context.obj
    with session.rest() as rest:
        rows = session.named(rest, list(rest.all("/resources")), site="/sites")
        session.table(rows, ["id", "name", "type", "address", "filters", "site"])


@resources.command("create")
def resources_create(
    context: Context,
    name: str,
    kind: Annotated[str, typer.Option("--type", callback=one_of("dns", "cidr", "ip"), help="dns, cidr or ip.")],
    address: Annotated[str, typer.Option("--address", help="As in *.corp.example, 10.9.0.0/16 or 10.9.0.2.")],
    site: Site,
    filters: Filters = None,
    ip_stack: Annotated[
        str | None,
        typer.Option(
            "--ip-stack",
            callback=one_of("dual", "ipv4_only", "ipv6_only"),
            help="dual, ipv4_only or ipv6_only; dns only.",
        ),
    ] = None,
    description: Annotated[str | None, typer.Option("--description", help="Shown to people.")] = None,
) -> None:
    """Make a resource."""
    session: Session = context.obj
    with session.rest() as rest:
        body: dict[str, Any] = {
            "name": name,
            "type": kind,
            "address": address,
            "site_id": rest.find("/sites", site)["id"],
        }
        body["filters"] = [parse_filter(text) for text in filters or []]
        body |= {"ip_stack": ip_stack} if ip_stack else {}
        body |= {"address_description": description} if description else {}
        session.show(rest.data("POST", "/resources", {"resource": body}))


@resources.command("update")
def resources_update(
    context: Context,
    resource: str,
    name: Annotated[str | None, typer.Option("--name", help="Another name.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="Another address.")] = None,
    filters: Filters = None,
    no_filters: Annotated[bool, typer.Option("--no-filters", help="Allow everything.")] = False,
) -> None:
    """Change a resource; what is not named stays."""
    session: Session = context.obj
    body: dict[str, Any] = {}
    body |= {"name": name} if name else {}
    body |= {"address": address} if address else {}
    body |= {"filters": [parse_filter(text) for text in filters]} if filters else {}
    body |= {"filters": []} if no_filters else {}
    with session.rest() as rest:
        session.show(rest.data("PATCH", f"/resources/{rest.find('/resources', resource)['id']}", {"resource": body}))


@resources.command("delete")
def resources_delete(context: Context, resource: str) -> None:
    """Delete a resource with its policies."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("DELETE", f"/resources/{rest.find('/resources', resource)['id']}"))


# --- policies ---

policies = group("policies", "Which group may reach which resource.")


@policies.command("list")
def policies_list(context: Context) -> None:
    """List policies."""
    session: Session = context.obj
    with session.rest() as rest:
        rows = session.named(rest, list(rest.all("/policies")), group="/groups", resource="/resources")
        session.table(rows, ["id", "group", "resource", "is_disabled", "conditions"])


@policies.command("create")
def policies_create(
    context: Context,
    group: Annotated[str, typer.Option("--group", help="By id or name.")],
    resource: Annotated[str, typer.Option("--resource", help="By id or name.")],
    conditions: Conditions = None,
    description: Annotated[str | None, typer.Option("--description", help="Shown to admins.")] = None,
) -> None:
    """Let a group reach a resource."""
    session: Session = context.obj
    with session.rest() as rest:
        body: dict[str, Any] = {
            "group_id": rest.find("/groups", group)["id"],
            "resource_id": rest.find("/resources", resource)["id"],
            "conditions": [parse_condition(text) for text in conditions or []],
        }
        body |= {"description": description} if description else {}
        session.show(rest.data("POST", "/policies", {"policy": body}))


@policies.command("disable")
def policies_disable(context: Context, policy_id: PolicyId) -> None:
    """Disable a policy: access ends at once."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("PATCH", f"/policies/{policy_id}", {"policy": {"is_disabled": True}}))


@policies.command("enable")
def policies_enable(context: Context, policy_id: PolicyId) -> None:
    """Enable a policy again."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("PATCH", f"/policies/{policy_id}", {"policy": {"is_disabled": False}}))


@policies.command("delete")
def policies_delete(context: Context, policy_id: PolicyId) -> None:
    """Delete a policy: access ends at once."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("DELETE", f"/policies/{policy_id}"))


# --- clients ---

clients = group("clients", "People's devices.")


@clients.command("list")
def clients_list(context: Context) -> None:
    """List clients."""
    session: Session = context.obj
    with session.rest() as rest:
        rows = session.named(rest, list(rest.all("/clients")), actor="/actors")
        session.table(rows, ["id", "name", "online", "actor", "ipv4", "ipv6", "verified_at", "last_seen_version"])


@clients.command("verify")
def clients_verify(context: Context, client: str) -> None:
    """Mark a device as verified."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("PUT", f"/clients/{rest.find('/clients', client)['id']}/verify"))


@clients.command("unverify")
def clients_unverify(context: Context, client: str) -> None:
    """Take the mark back; what the device was granted ends."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("PUT", f"/clients/{rest.find('/clients', client)['id']}/unverify"))


@clients.command("delete")
def clients_delete(context: Context, client: str) -> None:
    """Delete a device; it registers anew if its token still works."""
    session: Session = context.obj
    with session.rest() as rest:
        session.show(rest.data("DELETE", f"/clients/{rest.find('/clients', client)['id']}"))


from wardgate.admin import why as _why  # noqa: E402, F401 — its commands are registered with these
