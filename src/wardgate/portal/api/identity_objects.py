"""The objects of the read-only part of the API: identities, sign-in providers, directories, device inventories."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from wardgate.portal.api.objects import Instant, Out

Context = Literal["clients_and_portal", "clients_only", "portal_only"]


class ExternalIdentityOut(Out):
    """Who an actor is at an issuer."""

    id: UUID
    actor_id: UUID
    account_id: UUID
    issuer: str
    directory_id: UUID | None
    email: str | None
    idp_id: str
    name: str | None
    given_name: str | None
    family_name: str | None
    middle_name: str | None
    nickname: str | None
    preferred_username: str | None
    profile: str | None
    picture: str | None
    firezone_avatar_url: str | None
    synced_at: Instant | None
    inserted_at: Instant


class Configured(Out):
    """What everything that an admin configures has."""

    id: UUID
    account_id: UUID
    name: str
    is_disabled: bool
    inserted_at: Instant
    updated_at: Instant


class EmailOtpAuthProviderOut(Configured):
    """Sign-in by a code that is mailed."""

    issuer: str
    context: Context
    client_session_lifetime_secs: int
    portal_session_lifetime_secs: int


class GoogleAuthProviderOut(EmailOtpAuthProviderOut):
    """Sign-in with Google."""

    is_default: bool


class EntraAuthProviderOut(GoogleAuthProviderOut):
    """Sign-in with Microsoft Entra."""

    email_claim: str


class OktaAuthProviderOut(GoogleAuthProviderOut):
    """Sign-in with Okta."""

    client_id: str | None
    okta_domain: str | None


class OidcAuthProviderOut(GoogleAuthProviderOut):
    """Sign-in with any OpenID Connect provider."""

    client_id: str | None
    discovery_document_uri: str | None
    email_verification_method: str


class SyncedOut(Configured):
    """How the last sync went."""

    disabled_reason: str | None
    synced_at: Instant | None
    error_message: str | None
    errored_at: Instant | None


class DirectoryOut(SyncedOut):
    """A directory of people and groups."""

    error_email_count: int


class GoogleDirectoryOut(DirectoryOut):
    """Google Workspace."""

    domain: str
    impersonation_email: str | None
    group_sync_mode: str | None
    orgunit_sync_enabled: bool | None


class EntraDirectoryOut(DirectoryOut):
    """Microsoft Entra."""

    tenant_id: str
    email_field: str | None
    sync_all_groups: bool | None


class OktaDirectoryOut(DirectoryOut):
    """Okta."""

    client_id: str | None
    kid: str | None
    okta_domain: str


class PostureProviderOut(SyncedOut):
    """A device inventory."""

    type: str
    is_verified: bool


class IntunePostureProviderOut(PostureProviderOut):
    """Microsoft Intune."""

    tenant_id: str


class IruPostureProviderOut(PostureProviderOut):
    """Iru, formerly Kandji."""

    subdomain: str | None
    region: str | None


class PostureDeviceOut(Out):
    """A device as its inventory has it: every property that the vendor gave, beside these."""

    model_config = ConfigDict(extra="allow")

    id: Annotated[UUID, Field(description="The vendor's id.")]
    account_id: UUID
    posture_provider_id: UUID
    synced_at: Instant
    inserted_at: Instant
    updated_at: Instant
