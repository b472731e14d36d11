"""The chief's gRPC services."""
