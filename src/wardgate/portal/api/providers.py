"""Sign-in providers, directories and device inventories: to be read only; no secret is ever among them.

Every kind has routes of its own, which differ in their names and fields alone, so they are made by one function.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from fastapi import APIRouter

from wardgate.errors import Forbidden, NotFound
from wardgate.portal.api import identity_objects as objects
from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.lists import NEWEST_FIRST, NamedPaged, SortedPaged, page_of
from wardgate.portal.api.objects import Data, Id, Out, Page
from wardgate.portal.db.identities import is_rolled_out
from wardgate.portal.db.identity_tables import AuthProvider, Directory, KindRow, PostureDevice, PostureProvider
from wardgate.portal.db.scope import Scope

router = APIRouter()
_Shown = TypeVar("_Shown", bound=Out)
_EXTERNAL_KEYS: Final = {"google": "domain", "entra": "tenant_id", "okta": "okta_domain", "intune": "tenant_id"}
_DEFAULTS: Final = {"email_claim": "upn", "email_verification_method": "claim"}


def _values(row: KindRow, shown: type[Out]) -> dict[str, Any]:
    own = {name: getattr(row, name) for name in shown.model_fields if hasattr(row, name)}
    settings = {name: row.settings.get(name, _DEFAULTS.get(name)) for name in shown.model_fields if name not in own}
    if isinstance(row, Directory | PostureProvider) and row.type in _EXTERNAL_KEYS:
        settings[_EXTERNAL_KEYS[row.type]] = row.external_key
    return {**settings, **own}


def _add_kind(
    table: type[AuthProvider] | type[Directory] | type[PostureProvider],
    kind: str,
    shown: type[_Shown],
    tag: str,
    check: Callable[[Scope], Any] | None = None,
) -> None:
    """Adds the list and the single read of one kind."""
    path = f"/{kind}_{table.suffix}"

    async def list_them(caller: Authenticated, place: NamedPaged, name: str | None = None) -> Any:
        async with caller.reading() as scope:
            if check is not None:
                await check(scope)
            return await page_of(
                scope,
                table,
                place,
                lambda row: shown.model_validate(_values(row, shown)),
                order=NEWEST_FIRST,
                equal={"type": kind, "name": name},
            )

    async def read_one(caller: Authenticated, id: Id) -> Any:
        async with caller.reading() as scope:
            if check is not None:
                await check(scope)
            row = await scope.get(table, str(id))
            if row.type != kind:
                raise NotFound(f"there is none of that kind with the id {id}")
            return caller.found(shown.model_validate(_values(row, shown)))

    _add(path, tag, list_them, Page[shown], read_one, Data[shown], shown.__doc__ or "")  # type: ignore[valid-type]


def _add_devices(kind: str, check: Callable[[Scope], Any]) -> None:
    async def list_them(caller: Authenticated, place: SortedPaged) -> Any:
        async with caller.reading() as scope:
            await check(scope)
            return await page_of(scope, PostureDevice, place, _device, equal={"type": kind})

    async def read_one(caller: Authenticated, id: Id) -> Any:
        async with caller.reading() as scope:
            await check(scope)
            row = await scope.get(PostureDevice, str(id))
            if row.type != kind:
                raise NotFound(f"there is none of that kind with the id {id}")
            return caller.found(_device(row))

    page, data = Page[objects.PostureDeviceOut], Data[objects.PostureDeviceOut]
    _add(f"/{kind}_devices", "Posture", list_them, page, read_one, data, f"Devices of {kind.title()}.")


def _device(row: PostureDevice) -> objects.PostureDeviceOut:
    own = ("id", "account_id", "posture_provider_id", "synced_at", "inserted_at", "updated_at")
    return objects.PostureDeviceOut.model_validate({**row.inventory, **{name: getattr(row, name) for name in own}})


def _add(path: str, tag: str, list_them: Any, page: Any, read_one: Any, data: Any, words: str) -> None:
    name = path[1:]
    router.add_api_route(
        path,
        list_them,
        response_model=page,
        tags=[tag],
        name=f"list_{name}",
        summary=f"List {name.replace('_', ' ')}",
        description=f"{words} The newest first." if tag != "Posture" else words,
    )
    router.add_api_route(
        f"{path}/{{id}}",
        read_one,
        response_model=data,
        tags=[tag],
        name=f"read_{name}",
        summary=f"Read one of {name.replace('_', ' ')}",
        description=words,
    )


async def _check_posture(scope: Scope) -> None:
    """Inventories need the operator's switch and the account's plan.

    Raises:
        Forbidden: One is missing.
    """
    account = await scope.account()
    if not account.features.get("device_posture") or not await is_rolled_out(scope, "device_posture"):
        raise Forbidden("device posture is not switched on", "feature_missing", feature="device_posture")


_add_kind(AuthProvider, "email_otp", objects.EmailOtpAuthProviderOut, "Sign-in providers")
_add_kind(AuthProvider, "google", objects.GoogleAuthProviderOut, "Sign-in providers")
_add_kind(AuthProvider, "entra", objects.EntraAuthProviderOut, "Sign-in providers")
_add_kind(AuthProvider, "okta", objects.OktaAuthProviderOut, "Sign-in providers")
_add_kind(AuthProvider, "oidc", objects.OidcAuthProviderOut, "Sign-in providers")
_add_kind(Directory, "google", objects.GoogleDirectoryOut, "Directories")
_add_kind(Directory, "entra", objects.EntraDirectoryOut, "Directories")
_add_kind(Directory, "okta", objects.OktaDirectoryOut, "Directories")
_add_kind(PostureProvider, "intune", objects.IntunePostureProviderOut, "Posture", _check_posture)
_add_kind(PostureProvider, "iru", objects.IruPostureProviderOut, "Posture", _check_posture)
_add_devices("intune", _check_posture)
_add_devices("iru", _check_posture)
