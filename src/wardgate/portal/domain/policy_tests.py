"""What must stay true of access: "contractors never reach payments", "on call reaches payments on Sunday at 03:00".

What a test does not say of a connection is taken as favourable: somebody reaches a resource if there is any address,
country, provider or device that lets them in. Without a time, `never_reaches` means at no time and `reaches` means at
all times. The verdict comes from `authorize`, which decides about real requests.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from fnmatch import translate
from functools import lru_cache
from ipaddress import ip_address
from re import Pattern
from re import compile as compile_pattern
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from wardgate.errors import InvalidInput
from wardgate.portal.domain import checks
from wardgate.portal.domain.authorizations import Granted, PolicyRule, authorize
from wardgate.portal.domain.conditions import Circumstances, Condition, parse_conditions
from wardgate.portal.domain.reach import ALWAYS, Touched, hours_of, monday_of, ways
from wardgate.portal.domain.snapshot import AccessSnapshot, KnownPolicy

Expectation = Literal["reaches", "never_reaches"]
EXPECTATIONS: Final = ("reaches", "never_reaches")
EVERYONE: Final = "everyone"
ANYONE: Final = "anyone"
MAX_PAIRS: Final = 2_000_000
_DAYS: Final = "MTWRFSU"


@dataclass(frozen=True, slots=True)
class Moments:
    """The same time of day on some days of the week."""

    days: str
    time: time
    zone: str

    def near(self, at: datetime) -> list[datetime]:
        """Each of them within the seven days that begin with the day of that instant."""
        zone = ZoneInfo(self.zone)
        today: date = at.astimezone(zone).date()
        dates = (today + timedelta(days=number) for number in range(7))
        chosen = (one for one in dates if _DAYS[one.weekday()] in self.days)
        return [datetime.combine(one, self.time, zone).astimezone(UTC) for one in chosen]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a test says of the connection; `None` is anything."""

    remote_ip: str | None = None
    region: str | None = None
    auth_provider_id: str | None = None
    is_verified: bool | None = None

    def says(self, name: str) -> bool:
        """Whether it says what a condition on that property looks at."""
        value = {
            "remote_ip": self.remote_ip,
            "remote_ip_location_region": self.region,
            "auth_provider_id": self.auth_provider_id,
            "client_verified": self.is_verified,
        }.get(name)
        return value is not None


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One test.

    Attributes:
        who: `everyone` (all people), `anyone` (service accounts as well), `group:ID` or `actor:EMAIL`.
        resource: An id, or a pattern of names with `*` and `?`, in any case of letters.
    """

    id: str
    name: str
    who: str
    resource: str
    expectation: Expectation
    at: Moments | None = None
    origin: Origin = field(default_factory=Origin)


Violations = dict[str, set[str]]
"""By resource, the actors about whom a test is wrong; empty texts stand for what is not there to be tested."""


def violations(
    test: PolicyTest,
    snapshot: AccessSnapshot,
    at: datetime,
    actors: Collection[str] | None = None,
    resources: Collection[str] | None = None,
) -> Violations:
    """What is not as the test has it.

    Args:
        at: The instant whose week is looked at.
        actors: Looks at these only.
        resources: Looks at these only.
    """
    who = _actors(test, snapshot, actors)
    if test.expectation == "never_reaches" and actors is not None and len(who) < len(snapshot.resources):
        found: Violations = {}
        meant = _meant(test, snapshot)
        allowed = _Allowed(test, snapshot, at)
        for actor_id in who:
            for resource_id in allowed.resources_of(actor_id):
                if resource_id in meant:
                    found.setdefault(resource_id, set()).add(actor_id)
        return found
    return dict(_by_resource(test, snapshot, at, who, _resources(test, snapshot, resources)))


def _by_resource(
    test: PolicyTest, snapshot: AccessSnapshot, at: datetime, who: AbstractSet[str], resources: Iterable[str]
) -> Iterator[tuple[str, set[str]]]:
    allowed = _Allowed(test, snapshot, at)
    look = allowed.missing if test.expectation == "reaches" else allowed.reaching
    for resource_id in resources:
        if wrong := look(who, resource_id):
            yield resource_id, wrong


def has_nobody(test: PolicyTest, snapshot: AccessSnapshot) -> bool:
    """Whether a test that somebody reaches something is about nobody or nothing: then it does not hold."""
    if test.expectation != "reaches":
        return False
    return not _actors(test, snapshot, None) or not _meant(test, snapshot)


def all_violations(test: PolicyTest, snapshot: AccessSnapshot, at: datetime) -> Violations:
    """Everything that is not as the test has it."""
    return violations(test, snapshot, at) | ({"": {""}} if has_nobody(test, snapshot) else {})


def holds(test: PolicyTest, snapshot: AccessSnapshot, at: datetime) -> bool:
    """Whether everything is as the test has it; stops at the first thing that is not."""
    who = _actors(test, snapshot, None)
    wrong = _by_resource(test, snapshot, at, who, _resources(test, snapshot, None))
    return not has_nobody(test, snapshot) and next(wrong, None) is None


def broken_by(
    test: PolicyTest, before: AccessSnapshot, after: AccessSnapshot, touched: Touched, at: datetime
) -> Violations:
    """What is not as the test has it after a change, and was before it, or was not there."""
    if touched.is_everything:
        return _more(all_violations(test, after, at), all_violations(test, before, at))
    found: Violations = {}
    for actors, resources in ((touched.actors, None), (None, touched.resources)):
        if actors or resources:
            new = violations(test, after, at, actors, resources)
            added = _more(new, violations(test, before, at, actors, resources)) if new else {}
            for resource_id, some in added.items():
                found.setdefault(resource_id, set()).update(some)
    if has_nobody(test, after) and not has_nobody(test, before):
        found[""] = {""}
    return found


def _more(new: Violations, old: Violations) -> Violations:
    return {one: left for one, some in new.items() if (left := some - old.get(one, set()))}


def is_concerned(test: PolicyTest, before: AccessSnapshot, after: AccessSnapshot, touched: Touched) -> bool:
    """Whether a change may make a difference to what the test looks at."""
    if touched.is_everything:
        return True
    for snapshot in (before, after):
        if _resources(test, snapshot, touched.resources) and _actors(test, snapshot, None):
            return True
        if _actors(test, snapshot, touched.actors) and _meant(test, snapshot):
            return True
    return False


def pair_count(test: PolicyTest, snapshot: AccessSnapshot) -> int:
    """How many pairs a test is about."""
    return len(_actors(test, snapshot, None)) * len(_meant(test, snapshot))


# --- who and what -----------------------------------------------------------------------------------------------------


def _actors(test: PolicyTest, snapshot: AccessSnapshot, only: Collection[str] | None) -> AbstractSet[str]:
    kind, _, value = test.who.partition(":")
    if kind == "group":
        who = snapshot.actors_in(value) & snapshot.connecting
    elif kind == "actor":
        wanted = value.casefold()
        candidates = snapshot.actors.values()
        who = {one.id for one in candidates if one.email is not None and one.email.casefold() == wanted}
        who &= snapshot.connecting
    else:
        who = snapshot.people & snapshot.connecting if kind == EVERYONE else snapshot.connecting
    return who if only is None else who & frozenset(only)


def _resources(test: PolicyTest, snapshot: AccessSnapshot, only: Collection[str] | None) -> Collection[str]:
    meant = _meant(test, snapshot)
    return meant if only is None else [one for one in only if one in meant]


def _meant(test: PolicyTest, snapshot: AccessSnapshot) -> Collection[str]:
    """The resources that the test is about, worked out once for each pattern."""
    resources = snapshot.resources
    if checks.is_uuid(test.resource):
        return [test.resource] if test.resource in resources else []
    if test.resource == "*":
        return resources
    pattern = test.resource.casefold()
    if pattern not in snapshot.of_resources:
        fits = _pattern(pattern).match
        snapshot.of_resources[pattern] = frozenset(
            one.id for one in resources.values() if fits(one.name.casefold()) is not None
        )
    return snapshot.of_resources[pattern]


@lru_cache(maxsize=4096)
def _pattern(text: str) -> Pattern[str]:
    return compile_pattern(translate(text))


# --- what is allowed --------------------------------------------------------------------------------------------------


class _Allowed:
    """What policies allow under the circumstances of one test."""

    def __init__(self, test: PolicyTest, snapshot: AccessSnapshot, at: datetime) -> None:
        self._test = test
        self._snapshot = snapshot
        self._monday = monday_of(at)
        self._moments: Sequence[datetime | None] = test.at.near(at) if test.at else (None,)
        self._origin = test.origin
        self._known: dict[tuple[tuple[Condition, ...], datetime | None], bool] = {}

    def reaching(self, who: AbstractSet[str], resource_id: str) -> set[str]:
        """Who of them reaches the resource at any of the moments."""
        found: set[str] = set()
        for policy in self._policies(resource_id):
            if any(self._passes(policy, moment) for moment in self._moments):
                found |= self._snapshot.actors_in(policy.group_id or "") & who
        return found

    def resources_of(self, actor_id: str) -> set[str]:
        """What the actor reaches at any of the moments."""
        actor = self._snapshot.actors[actor_id]
        found = set()
        for group in self._snapshot.groups_with(actor):
            for policy_id in self._snapshot.policies_of_group.get(group.id, ()):
                policy = self._snapshot.policies[policy_id]
                if not policy.is_disabled and any(self._passes(policy, moment) for moment in self._moments):
                    found.add(policy.resource_id)
        return found

    def missing(self, who: AbstractSet[str], resource_id: str) -> set[str]:
        """Who of them does not reach the resource at all of the moments, or at all times."""
        policies = list(self._policies(resource_id))
        missing: set[str] = set()
        for moment in self._moments:
            reaching: set[str] = set()
            by_actor: dict[str, list[KnownPolicy]] = {}
            for policy in policies:
                if not self._passes(policy, moment):
                    continue
                members = self._snapshot.actors_in(policy.group_id or "")
                if moment is not None or self._hours(policy) == ALWAYS:
                    reaching |= members & who
                else:
                    for one in members & who:
                        by_actor.setdefault(one, []).append(policy)
            for one, some in by_actor.items():
                if one not in reaching and self._are_always_open(some):
                    reaching.add(one)
            missing |= who - reaching
        return missing

    def _policies(self, resource_id: str) -> Iterable[KnownPolicy]:
        for policy_id in self._snapshot.policies_of_resource.get(resource_id, ()):
            policy = self._snapshot.policies[policy_id]
            if not policy.is_disabled and policy.group_id is not None:
                yield policy

    def _passes(self, policy: KnownPolicy, moment: datetime | None) -> bool:
        """Whether the policy lets anybody in whom the test may mean; without a moment, at any time."""
        key = (policy.conditions, moment)
        if key not in self._known:
            has_hours = moment is not None or bool(self._hours(policy))
            self._known[key] = has_hours and self._decides(policy, moment)
        return self._known[key]

    def _decides(self, policy: KnownPolicy, moment: datetime | None) -> bool:
        looked_at = tuple(one for one in policy.conditions if self._is_said(one, moment))
        rule = PolicyRule(policy.id, policy.resource_id, policy.group_id, None, looked_at)  # type: ignore[arg-type]
        now = Circumstances(
            moment or self._monday,
            self._origin.remote_ip,
            self._origin.region,
            self._origin.auth_provider_id,
            bool(self._origin.is_verified),
        )
        return isinstance(authorize([rule], now), Granted)

    def _is_said(self, condition: Condition, moment: datetime | None) -> bool:
        if condition.property == "current_utc_datetime":
            return moment is not None
        return self._origin.says(condition.property)

    def _hours(self, policy: KnownPolicy) -> Any:
        return hours_of(ways([self._time_only(policy)], self._monday))

    def _are_always_open(self, policies: Iterable[KnownPolicy]) -> bool:
        return hours_of(ways([self._time_only(one) for one in policies], self._monday)) == ALWAYS

    def _time_only(self, policy: KnownPolicy) -> tuple[Condition, ...]:
        return tuple(one for one in policy.conditions if one.property == "current_utc_datetime")


# --- tests as people give them ----------------------------------------------------------------------------------------


def check_test(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a test as people gave it.

    Raises:
        InvalidInput: A field is not acceptable.
    """
    problems = checks.Problems()
    values: dict[str, Any] = {
        "name": checks.text(problems, fields, "name"),
        "who": checks.text(problems, fields, "who", most=200),
        "resource": checks.text(problems, fields, "resource"),
        "expectation": checks.one_of(problems, fields, "expectation", EXPECTATIONS),
        "is_enabled": checks.flag(problems, fields, "is_enabled", True),
        "at": _checked(problems, "at", _check_at, fields.get("at")),
        "origin": _checked(problems, "from", _check_origin, fields.get("from")),
    }
    who = values["who"]
    if who is not None and who not in (EVERYONE, ANYONE) and not who.startswith(("group:", "actor:")):
        problems.add("who", "is not everyone, anyone, group:NAME, group:ID or actor:EMAIL")
    problems.raise_if_any()
    return values


def _checked(problems: checks.Problems, name: str, check: Any, value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        problems.add(name, "is not an object")
        return None
    try:
        return check(value)
    except InvalidInput as error:
        problems.merge(InvalidInput({name: [text for texts in error.fields.values() for text in texts]}))
        return None


def _check_at(value: Mapping[str, Any]) -> dict[str, Any]:
    days, clock, zone = value.get("days", _DAYS), value.get("time"), value.get("zone", "UTC")
    if not isinstance(days, str) or not days or len(set(days)) != len(days) or not set(days) <= set(_DAYS):
        raise InvalidInput(
            {"days": ["has days that are not letters of MTWRFSU, each once (R is Thursday, U is Sunday)"]}
        )
    if not isinstance(clock, str) or not isinstance(zone, str):
        raise InvalidInput({"time": ["needs a time as HH:MM and a zone as Europe/Berlin"]})
    try:
        parsed = time.fromisoformat(clock)
        if parsed.tzinfo is not None:
            raise ValueError(clock)
        parse_conditions(
            [
                {
                    "property": "current_utc_datetime",
                    "operator": "is_in_day_of_week_time_ranges",
                    "values": [f"M/true/{zone}"],
                }
            ]
        )
    except (ValueError, InvalidInput):
        raise InvalidInput({"time": ["needs a time as HH:MM and a zone as Europe/Berlin"]}) from None
    return {"days": "".join(one for one in _DAYS if one in days), "time": parsed.strftime("%H:%M:%S"), "zone": zone}


def _check_origin(value: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(value) - {"remote_ip", "region", "auth_provider_id", "verified"})
    if unknown:
        raise InvalidInput({"from": [f"has no {name}" for name in unknown]})
    found: dict[str, Any] = {}
    if value.get("remote_ip") is not None:
        try:
            found["remote_ip"] = str(ip_address(str(value["remote_ip"])))
        except ValueError:
            raise InvalidInput({"from": ["has a remote_ip that is no IP address"]}) from None
    for name, condition in (("region", "remote_ip_location_region"), ("auth_provider_id", "auth_provider_id")):
        if value.get(name) is not None:
            parse_conditions([{"property": condition, "operator": "is_in", "values": [str(value[name])]}])
            found[name] = str(value[name])
    if value.get("verified") is not None:
        if not isinstance(value["verified"], bool):
            raise InvalidInput({"from": ["has a verified that is neither true nor false"]})
        found["verified"] = value["verified"]
    return found


def parse_moments(value: Mapping[str, Any] | None) -> Moments | None:
    """A stored `at`."""
    return Moments(value["days"], time.fromisoformat(value["time"]), value["zone"]) if value else None


def parse_origin(value: Mapping[str, Any] | None) -> Origin:
    """A stored `from`."""
    given = dict(value or {})
    return replace(Origin(), is_verified=given.pop("verified", None), **given)
