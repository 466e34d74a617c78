"""The OpenAPI document holds, and nothing that it allows, or does not, breaks the server (schemathesis)."""

from __future__ import annotations

from contextlib import asynccontextmanager

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from served import small_model

from weft.server import Settings, create_app


@asynccontextmanager
async def all_along(app):
    """Schemathesis lets the application begin and end with every request."""
    yield


APP = create_app(small_model(), Settings(reply_tokens=8))
APP.router.lifespan_context = all_along
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)


@SCHEMA.parametrize()
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_server(case):
    # What a schema can't say (the last message is the user's, a data URL holds a picture) is refused all the same.
    case.call_and_validate(excluded_checks=[positive_data_acceptance])
