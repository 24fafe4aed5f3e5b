"""Renders the manifests with kustomize and checks what comes out: `make manifests`.

Every object is held against the schema of its kind, every pod against the restricted pod security standard.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.manifests.pods import pods, violations
from tests.manifests.schemas import LOADER, Schemas

ROOT = Path(__file__).resolve().parents[2] / "manifests"
CRDS = ROOT.parents[1] / "shared" / "crds"
# Kinds whose schemas only a cluster's CustomResourceDefinitions have. Everything else is checked without them.
_CUSTOM = ("serving.kserve.io", "gateway.networking.k8s.io")


def folders() -> list[Path]:
    """Return what can be applied by itself: the base, the overlays, and what was there before them."""
    overlays = sorted(path.parent for path in ROOT.glob("overlays/*/kustomization.yaml"))
    return [ROOT / "base", *overlays, ROOT / "tensorboard"]


def components() -> list[Path]:
    """Return the options that overlays are made with."""
    return sorted(path.parent for path in ROOT.glob("components/*/kustomization.yaml"))


def render(folder: Path) -> list[dict[str, Any]]:
    """Return the objects of a kustomization.

    Raises:
        ValueError: kustomize refused it; with what it said.
    """
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode or done.stderr:
        raise ValueError(done.stderr.strip())
    return list(yaml.load_all(done.stdout, Loader=LOADER))


def render_component(component: Path) -> list[dict[str, Any]]:
    """Return the objects of the base with one option."""
    with tempfile.TemporaryDirectory() as folder:
        here = os.path.relpath(ROOT, Path(folder).resolve())  # kustomize takes no absolute paths
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{here}/base"],
            "components": [f"{here}/components/{component.name}"],
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
        return render(Path(folder))


def problems(objects: list[dict[str, Any]], schemas: Schemas) -> Iterator[str]:
    """Yield what is wrong with objects, each with the object and the field."""
    for item in objects:
        name = f"{item['kind']}/{item['metadata']['name']}"
        try:
            yield from (f"{name}  {error}" for error in schemas.errors(item))
        except LookupError as error:
            if schemas.crds.is_dir() or not item["apiVersion"].startswith(_CUSTOM):
                yield f"{name}  {error}"
    for name, pod in pods(objects).items():
        yield from (f"{name}  pod security restricted: {found}" for found in violations(pod))


def examples() -> list[str]:
    """Return the settings of prod that are still as they came."""
    path = ROOT / "overlays" / "prod" / "site.env"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [
        line.split("=")[0] for line in lines if line.endswith((".example.org", "@my-project.iam.gserviceaccount.com"))
    ]


def main() -> int:
    """Check everything; return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crds", type=Path, help="folder of the cluster's CustomResourceDefinitions")
    given = parser.parse_args().crds
    if given and not any(given.glob("*.yaml")):
        parser.error(f"{given} (--crds, CRDS= of make): no .yaml file there. kubectl get crd NAME -o yaml writes one.")
    schemas = Schemas(given or CRDS)
    if not schemas.crds.is_dir():
        print("Objects of KServe and the Gateway API are only rendered: give their definitions with CRDS=folder,")
        print("as docs/serving.md says.")
    failed = False
    for folder in [*folders(), *components()]:
        name = folder.relative_to(ROOT.parent)
        try:
            objects = render(folder) if folder in folders() else render_component(folder)
            found = list(problems(objects, schemas))
        except ValueError as error:
            objects, found = [], [str(error)]
        failed |= bool(found)
        print(f"{name!s:38} {len(objects):3} objects  {f'{len(found)} wrong' if found else 'ok'}")
        for line in found:
            print(f"    {line}")
    if left := examples():
        print(f"Before you apply prod or gpu: {', '.join(left)} in overlays/prod/site.env must be yours.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
