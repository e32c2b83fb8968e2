"""A gRPC client that learns a server's messages from its reflection service."""

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status


class CallFailed(Exception):
    """A call that the server refused or never answered: `CODE REASON: message`."""

    def __init__(self, error):
        self.code = error.code().name
        self.message = error.details()
        self.reason = error_reason(error)
        super().__init__(f"{self.code}{' ' + self.reason if self.reason else ''}: {self.message}")


def error_reason(error):
    """The reason in the error's ErrorInfo, or an empty string."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
            return info.reason
    return ""


class Broker:
    """One server and what its reflection has told us so far."""

    def __init__(self, channel, timeout):
        self.pool = descriptor_pool.DescriptorPool()
        self._channel = channel
        self._timeout = timeout
        self._known_files = set()

    def services(self, version):
        """Names of all services, by reflection `v1` or `v1alpha`, sorted."""
        reply = self._reflect(reflection_pb2.ServerReflectionRequest(list_services=""), version)
        return sorted(service.name for service in reply.list_services_response.service)

    def methods(self, service):
        """Names of the methods of a service, as it declares them."""
        return [method.name for method in self._service(service).methods]

    def call(self, service, method, request):
        """Makes a unary call with a request given as a dictionary in protobuf's JSON form."""
        found = self._service(service).methods_by_name.get(method)
        if found is None:
            raise LookupError(f"{service} has no method {method}")
        message = message_factory.GetMessageClass(found.input_type)()
        json_format.ParseDict(request, message, descriptor_pool=self.pool)
        invoke = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(found.output_type).FromString,
        )
        try:
            return invoke(message, timeout=self._timeout)
        except grpc.RpcError as error:
            raise CallFailed(error) from error

    def _service(self, name):
        self._learn(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
        return self.pool.FindServiceByName(name)

    def _learn(self, request):
        """Adds the files of a reflection reply to the pool, what they import first."""
        reply = self._reflect(request, "v1")
        for serialized in reply.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
            if file.name in self._known_files:
                continue
            self._known_files.add(file.name)
            for imported in file.dependency:
                if imported not in self._known_files:
                    self._learn(reflection_pb2.ServerReflectionRequest(file_by_filename=imported))
            self.pool.Add(file)

    def _reflect(self, request, version):
        """One question to the reflection service. Both versions use the same messages, by other names."""
        stream = self._channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        try:
            reply = next(stream(iter([request]), timeout=self._timeout))
        except grpc.RpcError as error:
            raise CallFailed(error) from error
        if reply.HasField("error_response"):
            raise LookupError(f"reflection {version}: {reply.error_response.error_message}")
        return reply
