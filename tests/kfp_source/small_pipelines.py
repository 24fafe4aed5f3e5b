"""Small pipelines, each for one thing that KFP's backend does and no local runner shows."""

from collections.abc import Callable
from pathlib import Path

from kfp import compiler, dsl, kubernetes

__all__ = ["compile_to"]


def compile_to(folder: Path, pipeline: Callable[..., None]) -> Path:
    """Compile a function as a pipeline and return the path of its YAML."""
    name = pipeline.__name__.replace("_", "-")
    path = folder / f"{name}.yaml"
    compiler.Compiler().compile(dsl.pipeline(name=name)(pipeline), str(path))
    return path


@dsl.container_component
def say(text: str, out: dsl.OutputPath(str)):
    return dsl.ContainerSpec("busybox:1", ["sh", "-c", 'echo "$0" > "$1"'], [text, out])


@dsl.container_component
def make(text: str, data: dsl.Output[dsl.Dataset]):
    return dsl.ContainerSpec("busybox:1", ["sh", "-c", 'echo "$0" > "$1"'], [text, data.path])


@dsl.container_component
def use(
    data: dsl.Input[dsl.Dataset],
    text: str,
    count: int,
    share: float,
    yes: bool,
    names: list,
    more: dict,
    model: dsl.Output[dsl.Model],
    score: dsl.OutputPath(float),
):
    given = [text, count, share, yes, names, more]
    return dsl.ContainerSpec("busybox:1", ["sh", "-c", "true && : <é>"], [data.path, *given, model.path, score])


@dsl.component(base_image="busybox:1")
def tell(status: dsl.PipelineTaskFinalStatus) -> None:
    print(status.state)


@dsl.component(base_image="busybox:1")
def end(text: str = "") -> None:
    print(text)


def every_kind(text: str = "<a> & é", count: int = 3, share: float = 1e-7, yes: bool = True) -> None:
    made = make(text=text)
    names, more = ["a", 1, []], {"b": {"c": False}, "a": 2.0}
    use(data=made.outputs["data"], text=text, count=count, share=share, yes=yes, names=names, more=more)


def importer_of_a_task(address: str = "gs://a/data/1") -> None:
    said = say(text=address)
    data = dsl.importer(artifact_uri=said.outputs["out"], artifact_class=dsl.Dataset, reimport=False)
    _use(data.output)


def importer_of_a_parameter(address: str = "gs://a/data/1") -> None:
    _use(dsl.importer(artifact_uri=address, artifact_class=dsl.Dataset, reimport=False).output)


def importer_with_a_name(address: str = "gs://a/data/1") -> None:
    data = dsl.importer(artifact_uri=address, artifact_class=dsl.Dataset, reimport=False)
    _use(data.set_display_name("The data").output)


def one_of_two(text: str = "y") -> None:
    said = say(text=text)
    with dsl.If(said.outputs["out"] == "y"):
        yes = say(text="yes")
    with dsl.Else():
        no = say(text="no")
    end(text=dsl.OneOf(yes.outputs["out"], no.outputs["out"]))


def end_after_two(text: str = "") -> None:
    first = say(text=text)
    second = say(text=first.outputs["out"])
    say(text=second.outputs["out"])
    end(text="").after(first, second).ignore_upstream_failure()


def end_after_the_last(text: str = "") -> None:
    first = say(text=text).set_caching_options(False)
    second = say(text=first.outputs["out"]).set_caching_options(False)
    end(text="").after(second).ignore_upstream_failure()


def exit_handler(text: str = "") -> None:
    with dsl.ExitHandler(tell(), name="run"):
        first = say(text=text).set_caching_options(False)
        with dsl.If(first.outputs["out"] == "go", name="go"):
            say(text="last").set_caching_options(False)


def kept_by_its_address(address: str = "gs://a/data/1", limit: float = 0.5) -> None:
    said = say(text=address).set_caching_options(False)
    made = make(text=said.outputs["out"])
    _use(made.outputs["data"])
    end(text=f"{limit}")


def _use(data: dsl.Dataset) -> None:
    use(data=data, text="", count=0, share=0.0, yes=False, names=[], more={})


def mounts(claim: str = "") -> None:
    kubernetes.mount_pvc(say(text="a"), claim, "/data")


def mounts_one_claim_twice() -> None:
    kubernetes.mount_pvc(kubernetes.mount_pvc(say(text="a"), "nas", "/data", "tiles"), "nas", "/results")
