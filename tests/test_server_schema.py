"""The OpenAPI document holds, and nothing that it allows, or does not, breaks the server (schemathesis)."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from served import small_model

from weft.server import Settings, create_app


@asynccontextmanager
async def all_along(app):
    """Schemathesis lets the application begin and end with every request."""
    yield


@pytest.fixture(scope="module")
def schema():
    app = create_app(small_model(), Settings(reply_tokens=8))
    app.router.lifespan_context = all_along
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def test_no_request_breaks_the_server(schema):
    for operation in schema.get_all_operations():

        @given(case=operation.ok().as_strategy())
        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        def holds(case):
            # What a schema can't say (the last message is the user's, a data URL holds a picture) is refused as well.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        holds()
