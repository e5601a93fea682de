"""Signatures against those that AWS has published."""

from datetime import UTC, datetime

import pytest

from wardgate.portal.sinks.sigv4 import Credentials, sign

# AWS Signature Version 4 test suite, "get-vanilla" and others
SUITE = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SUITE_AT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
# Amazon S3 API reference, "Authenticating Requests: Using the Authorization Header"
S3_CREDENTIALS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
S3_AT = datetime(2013, 5, 24, tzinfo=UTC)
BUCKET = "https://examplebucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("method", "query", "signature"),
    [
        ("GET", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("GET", "?Param2=value2&Param1=value1", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
    ],
)
def test_signatures_of_the_published_suite(method: str, query: str, signature: str) -> None:
    signed = sign(
        method,
        f"https://example.amazonaws.com/{query}",
        {},
        b"",
        credentials=SUITE,
        region="us-east-1",
        service="service",
        at=SUITE_AT,
    )

    assert signed["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={signature}"
    )


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "signature"),
    [
        (
            "GET",
            "/test.txt",
            {"Range": "bytes=0-9"},
            b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test%24file.text",
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        ("GET", "/?lifecycle=", {}, b"", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            "GET",
            "/?max-keys=2&prefix=J",
            {},
            b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_signatures_of_the_s3_reference(
    method: str, path: str, headers: dict[str, str], body: bytes, signature: str
) -> None:
    signed = sign(
        method,
        BUCKET + path,
        headers,
        body,
        credentials=S3_CREDENTIALS,
        region="us-east-1",
        service="s3",
        at=S3_AT,
    )

    assert signed["authorization"].endswith(f"Signature={signature}")


def test_a_session_token_is_signed_and_secrets_are_not_shown() -> None:
    temporary = Credentials("AKIDEXAMPLE", "secret", "session")
    signed = sign("GET", BUCKET, {}, b"", credentials=temporary, region="eu-central-1", service="s3", at=S3_AT)

    assert signed["x-amz-security-token"] == "session"
    assert "x-amz-security-token" in signed["authorization"]
    assert "secret" not in repr(temporary)
