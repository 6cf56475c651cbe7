"""The service on grpcio: threads that wait for the batcher, health and reflection beside them."""

import errno
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from engine.errors import ServiceError
from serving.pb.nextbest.v1 import decision_service_pb2, journey_service_pb2
from serving.pb.nextbest.v1.decision_service_pb2_grpc import add_DecisionServiceServicer_to_server
from serving.pb.nextbest.v1.journey_service_pb2_grpc import add_JourneyServiceServicer_to_server
from serving.service import Decisions, Journeys, Submit

THREADS = 64
"""Calls that can wait for the batcher at a time, and so the most single calls in a batch."""

CALLS = 1024
"""Calls that may be under way, waiting for a thread included; grpcio refuses more with RESOURCE_EXHAUSTED."""

_NAMES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in ((decision_service_pb2, "DecisionService"), (journey_service_pb2, "JourneyService"))
)


class Transport:
    """A gRPC server on one port, first bound, then started, then stopped."""

    def __init__(self, host: str, port: int, threads: int = THREADS, calls: int = CALLS) -> None:
        """Binds `host:port`; port 0 takes a free one, `port` then says which. Raises ServiceError."""
        _probe(host, port)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="nextbest-call")
        # Without the option two servers could share a port, and each get half of the calls.
        options = [("grpc.so_reuseport", 0)]
        self._server = grpc.server(self._threads, options=options, maximum_concurrent_rpcs=calls)
        self._health = health.HealthServicer()
        try:
            self.port: int = self._server.add_insecure_port(place(host, port))
        except RuntimeError as error:
            self._threads.shutdown()
            raise ServiceError(f"cannot listen on {place(host, port)}: {error}") from None

    def start(self, submit: Submit) -> None:
        """Answers from now on; health says SERVING."""
        add_DecisionServiceServicer_to_server(Decisions(submit), self._server)  # type: ignore[no-untyped-call]
        add_JourneyServiceServicer_to_server(Journeys(submit), self._server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        for name in ("", *_NAMES):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._server.start()

    def stop(self, grace: float) -> None:
        """Health says NOT_SERVING, new calls are refused, those under way have `grace` seconds to finish."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace).wait()
        self._threads.shutdown()


def place(host: str, port: int) -> str:
    """host:port as clients write it; an IPv6 address gets its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _probe(host: str, port: int) -> None:
    """Bind and let go: grpcio does not say why it cannot bind, the operating system does. Raises ServiceError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as error:
        known = isinstance(error.errno, int) and error.errno in errno.errorcode
        reason = os.strerror(error.errno or 0) if known else str(error.strerror or error)
        raise ServiceError(f"cannot listen on {place(host, port)}: {reason}") from None
