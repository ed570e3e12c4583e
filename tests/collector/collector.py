"""A collector for tests: takes OTLP over HTTP or gRPC, decodes it with the messages of PyPI's `opentelemetry-proto`, and writes what came
as JSON lines on stderr.

    collector.py http|https|grpc PORT [REFUSALS]

PORT 0 takes any that is free. The first REFUSALS exports of traces are answered with 503 or UNAVAILABLE. With https, the certificate
of its authority is written to ca.pem in the working directory.
"""

import json
import ssl
import sys
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

protocol, port = sys.argv[1], int(sys.argv[2])
refusals = int(sys.argv[3]) if len(sys.argv) > 3 else 0


def say(message, **more):
    sys.stderr.write(json.dumps({"message": message, **more}) + "\n")
    sys.stderr.flush()


def take(signal, request, headers):
    """Whether the export is taken."""
    global refusals
    if signal == "traces" and refusals > 0:
        refusals -= 1
        say("refused")
        return False
    say(signal, headers=headers, export=MessageToDict(request))
    return True


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        kinds = {
            "/v1/traces": ("traces", traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse),
            "/v1/metrics": ("metrics", metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
        }
        signal, request, response = kinds[self.path]
        assert self.headers["content-type"] == "application/x-protobuf"
        headers = {name.lower(): value for name, value in self.headers.items()}
        taken = take(signal, request.FromString(body), headers)
        answer = response().SerializeToString()
        self.send_response(200 if taken else 503)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def http():
    server = ThreadingHTTPServer(("127.0.0.1", port), Http)
    if protocol == "https":
        import trustme

        authority = trustme.CA()
        authority.cert_pem.write_to_path("ca.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    say("listening", address=f"127.0.0.1:{server.server_address[1]}")
    server.serve_forever()


def grpc():
    import grpc as g
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc

    def export(signal, response):
        def handle(self, request, context):
            headers = {key: value for key, value in context.invocation_metadata()}
            if not take(signal, request, headers):
                context.abort(g.StatusCode.UNAVAILABLE, "come again")
            return response()

        return handle

    class Traces(traces_grpc.TraceServiceServicer):
        Export = export("traces", traces.ExportTraceServiceResponse)

    class Metrics(metrics_grpc.MetricsServiceServicer):
        Export = export("metrics", metrics.ExportMetricsServiceResponse)

    server = g.server(futures.ThreadPoolExecutor(4))
    traces_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    metrics_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    say("listening", address=f"127.0.0.1:{bound}")
    server.wait_for_termination()


grpc() if protocol == "grpc" else http()
