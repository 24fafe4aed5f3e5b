"""`deployment.json`: the deployed version, its address, and its largest difference from the golden tiles."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from sat_xception.deploy.rollout_record import RolloutRecord
from sat_xception.storage.document import Document

__all__ = ["CheckedPackage", "Deployment"]


class CheckedPackage(Document):
    """Content of `deployment.json` with the target "none": a package that was checked and not deployed.

    Attributes:
        target: "none".
        name: Name that the model is served as.
        version: Its version.
        backbone: Name of the network.
        model: Digest of the Keras model.
    """

    file_name: ClassVar[str] = "deployment.json"
    made_by: ClassVar[str] = "deploy"

    target: Literal["none"] = "none"
    name: str
    version: int
    backbone: str
    model: str


class Deployment(Document):
    """Content of `deployment.json` for a deployed version, in a model root or on a cluster.

    Attributes:
        name: Name that the model is served as.
        version: Its version.
        version_before: Version that was serving before; None if there was none.
        backbone: Name of the network.
        model: Digest of the Keras model.
        model_root: Folder or address that the server reads.
        endpoint: Address that was checked; "" if a server was started only for the check.
        endpoint_host: Host header of requests to it; "" for that of the address.
        golden_tiles: Number of golden tiles.
        golden_difference: Largest difference of a probability from the golden tiles.
        serve_command: Command that starts the endpoint; "" on a cluster.
        deployed_at: Time of the deployment, UTC.
        rollout: Record of the rollout on a cluster; None, and left out of the file, without one.
    """

    file_name: ClassVar[str] = "deployment.json"
    made_by: ClassVar[str] = "deploy"

    name: str
    version: int
    version_before: int | None
    backbone: str
    model: str
    model_root: str
    endpoint: str
    endpoint_host: str = ""
    golden_tiles: int
    golden_difference: float
    serve_command: str
    deployed_at: str
    rollout: RolloutRecord | None = None

    @model_serializer(mode="wrap")
    def _leave_out_an_absent_rollout(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        if self.rollout is None:
            del content["rollout"]
        return content
