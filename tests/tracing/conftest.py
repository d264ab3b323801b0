from collections.abc import Iterator

import pytest

from server_process import launch
from tracing.receiver import Receiver, grpc_receiver, http_receiver

__all__ = ["launch", "receiver"]


@pytest.fixture(params=["http/protobuf", "grpc"])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    make = http_receiver if request.param == "http/protobuf" else grpc_receiver
    with make() as one:
        yield one
